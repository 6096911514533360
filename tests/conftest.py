"""How many examples properties are tried on: few in `make test`, many in `make fuzz` (`--hypothesis-profile=fuzz`)."""

from hypothesis import settings

settings.register_profile("fuzz", max_examples=1050, deadline=None, print_blob=True)
