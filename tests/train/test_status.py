"""Provenance of a training: status, time and memory."""

from trainings import Begin, trained


def test_provenance_tells_how_it_ended_and_what_it_took(begin: Begin) -> None:
    setup, run = begin()
    assert run.provenance["status"] == "created"
    run.describe(wall_time_s=1000.0)  # spent before a stop
    trained(setup, run, resume=True)
    facts = run.provenance
    assert facts["status"] == "finished"
    assert facts["device"] == "cpu"
    assert facts["steps"] == setup.n_steps == 5
    assert 1000 <= facts["wall_time_s"] < 1100
    assert facts["peak_memory_mb"] > 0
    assert {"argv", "git", "versions", "created"} <= set(facts)
