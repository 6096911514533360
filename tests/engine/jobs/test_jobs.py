"""Jobs over HTTP, in and out: a gateway, a store and a handler's server, all real."""

from __future__ import annotations

from tests.fakes.handler_server import HandlerServer
from tests.fakes.job_yard import Yard


def test_a_job_goes_in_and_its_output_comes_out(yard: Yard, server: HandlerServer) -> None:
    yard.add_handler(server)
    job_id = yard.run(job_input={"prompt": "a cat astronaut"})
    job = yard.ended(job_id)
    assert job["status"] == "succeeded", job
    assert job["output"] == {"echo": {"prompt": "a cat astronaut"}}
    assert job["attempts"] == 1 and job["executionMs"] >= 0 and job["delayMs"] >= 0
