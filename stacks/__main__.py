"""Entry point of `pulumi up` in the checkout (`main: stacks` in Pulumi.yaml)."""

from stacks.registry import run_program

run_program()
