import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from engine.identity.worker_identity import new_worker_identity

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_certificate_names_the_stack_and_lasts_ten_years() -> None:
    identity = new_worker_identity("dep_abc", NOW)
    certificate = x509.load_pem_x509_certificate(identity.certificate_pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["dep-abc"]
    assert certificate.not_valid_after_utc - NOW >= timedelta(days=3650)
    assert certificate.not_valid_before_utc < NOW


def test_fingerprint_is_sha256_of_the_der_and_the_key_fits_the_certificate(tmp_path: Path) -> None:
    identity = new_worker_identity("dep_abc", NOW)
    der = ssl.PEM_cert_to_DER_cert(identity.certificate_pem)
    assert identity.fingerprint == hashlib.sha256(der).hexdigest()
    (tmp_path / "pair.pem").write_text(identity.certificate_pem + identity.private_key_pem)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "pair.pem")


def test_every_deployment_gets_its_own_identity_and_repr_hides_it() -> None:
    one, two = new_worker_identity("dep_a", NOW), new_worker_identity("dep_a", NOW)
    assert one.token != two.token and one.fingerprint != two.fingerprint
    assert one.token not in repr(one) and "PRIVATE" not in repr(one)
