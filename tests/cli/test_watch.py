import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fcntl import ioctl
from pathlib import Path
from select import select

import pytest
from animals import Gmmc
from running import begun, described, line, logged, previewed, trained

LEAVE = b"\x1b[?1049l"  # the alternate screen


class Script:
    """What happens to a run each time that ``gmmc watch`` waits; at the end nobody trains it any more."""

    def __init__(self, *scenes: Callable[[], object]) -> None:
        self.scenes, self.training = [*scenes], ExitStack()

    def play(self, seconds: float) -> None:
        self.scenes.pop(0)()
        if not self.scenes:
            self.training.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return begun(tmp_path / "runs")


@pytest.fixture
def script(run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Script]]:
    def plan(*scenes: Callable[[], object]) -> Script:
        script = Script(*scenes)
        script.training.enter_context(trained(run))
        monkeypatch.setattr("gmmcli.cli.watch.time.sleep", script.play)
        plans.append(script)
        return script

    plans: list[Script] = []
    yield plan
    for script in plans:
        script.training.close()


def test_without_a_terminal_each_line_is_printed_when_it_is_logged(gmmc: Gmmc, run: Path, script: Callable[..., Script]) -> None:
    logged(run, line(5), line(10))
    script(
        lambda: None,
        lambda: logged(run, line(15), {"step": 15, "validation_accuracy": 0.5}),
        lambda: logged(run, {"step": 16, "event": "chains", "reason": "they stand still"}),
        lambda: described(run, status="finished"),
    )
    result = gmmc("watch", "--run", run)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "step 10 of 100 (10%), 0:18 left, loss 10, E real 6, E sampled 5, batch accuracy 10.0%",
        "step 15 of 100 (15%), 0:17 left, loss 6.67, E real 4, E sampled 3.33, batch accuracy 15.0%",
        "step 15, validation accuracy 50.0%",
        "step 16: they stand still",
        "finished: step 15 of 100 (15%)",
    ]


def test_a_run_that_has_ended_is_told_at_once(gmmc: Gmmc, run: Path) -> None:
    logged(run, line(100))
    result = gmmc("watch", "--run", run)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "killed: step 100 of 100 (100%)"


def test_ctrl_c_is_how_one_quits(gmmc: Gmmc, run: Path, script: Callable[..., Script], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    script(interrupted, lambda: None)
    result = gmmc("watch", "--run", run)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_a_run_that_is_deleted_meanwhile_is_one_sentence(gmmc: Gmmc, run: Path, script: Callable[..., Script]) -> None:
    script(lambda: shutil.rmtree(run), lambda: None)
    result = gmmc("watch", "--run", run)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[0] == f"gmmc: error: {run} was removed or moved while it was watched"


def test_json_is_a_snapshot(gmmc: Gmmc, run: Path) -> None:
    logged(run, line(10))
    with trained(run):
        found = json.loads(gmmc("watch", "--run", run, "--json").stdout)
    assert {key: found[key] for key in ("schema", "command", "run")} == {"schema": 1, "command": "watch", "run": run.name}
    assert (found["values"]["status"], found["values"]["step"], found["values"]["seconds_left"]) == ("running", 10, 18)


def test_the_newest_run_in_training_is_meant_or_else_the_newest(gmmc: Gmmc, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = begun(run.parent, "2026-02-02T000000Z")

    def meant() -> str:
        return str(json.loads(gmmc("watch", "--runs-dir", run.parent, "--json").stdout)["run"])

    assert meant() == newer.name
    with trained(run):
        assert meant() == run.name
        monkeypatch.setenv("GMMC_RUN", newer.name)
        assert meant() == newer.name


def test_no_run_is_said(gmmc: Gmmc, tmp_path: Path) -> None:
    result = gmmc("watch", "--runs-dir", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no run in" in result.stderr


def test_it_starts_without_torch(run: Path) -> None:
    code = "import sys; from gmmcli.cli.app import app; app(standalone_mode=False); sys.exit('torch' in sys.modules)"
    logged(run, line(10))
    previewed(run, 10)
    for words in (["--json"], []):
        done = subprocess.run([sys.executable, "-c", code, "watch", "--run", str(run), *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class Terminal:
    """``gmmc watch`` on a terminal of 40 rows and 100 columns, with what it has printed so far."""

    def __init__(self, run: Path, **environment: str) -> None:
        self.end, terminal = pty.openpty()
        ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.before = termios.tcgetattr(terminal)
        unset = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "GMMC_RUN"}
        plain = {name: value for name, value in os.environ.items() if name not in unset}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gmmcli", "watch", "--run", str(run)],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=plain | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONUTF8": "1"} | environment,
        )
        self.terminal, self.shown = terminal, b""

    def wait_for(self, text: str) -> None:
        while text.encode() not in self.shown:
            assert select([self.end], [], [], 60)[0], self.shown.decode()
            self.shown += os.read(self.end, 65536)

    def ended(self) -> int:
        """The exit code; the terminal is then as it was."""
        while self.process.poll() is None:
            if select([self.end], [], [], 0.1)[0]:
                self.shown += os.read(self.end, 65536)
        while select([self.end], [], [], 0)[0]:
            self.shown += os.read(self.end, 65536)
        assert termios.tcgetattr(self.terminal) == self.before
        os.close(self.terminal)
        os.close(self.end)
        return self.process.returncode


def test_on_a_terminal_it_draws_what_is_new_and_q_quits(run: Path) -> None:
    logged(run, line(10))
    previewed(run, 10)
    with trained(run):
        terminal = Terminal(run)
        terminal.wait_for("step 10 of 100")
        terminal.wait_for("▀")
        logged(run, line(20))
        terminal.wait_for("step 20 of 100")
        os.write(terminal.end, b"q")
        assert terminal.ended() == 0
    drawn, _, left = terminal.shown.partition(LEAVE)
    assert "q to quit" in drawn.decode()
    assert "step 20 of 100" in left.decode()  # what it said last stays
    assert "q to quit" not in left.decode()


def test_on_a_terminal_it_ends_with_the_run_and_needs_no_colours(run: Path) -> None:
    logged(run, line(10))
    picture = previewed(run, 10)
    with trained(run):
        terminal = Terminal(run, NO_COLOR="1")
        terminal.wait_for("step 10 of 100")
        described(run, status="finished")
    assert terminal.ended() == 0
    text = terminal.shown.decode()
    assert "finished" in text.partition(LEAVE.decode())[2]
    assert "▀" not in text
    assert f"newest preview: samples/{picture.name}" in text
    assert ";2;" not in text


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}], ids=["dumb", "ascii"])
def test_a_terminal_that_cannot_be_drawn_on_gets_lines(environment: dict[str, str], run: Path) -> None:
    logged(run, line(10))
    terminal = Terminal(run, **environment)
    assert terminal.ended() == 0
    assert b"\x1b" not in terminal.shown
    assert terminal.shown.decode().splitlines()[-1] == "killed: step 10 of 100 (10%)"
