"""Jobs on a local Ray cluster of two nodes: the rows of threads, and nothing lost with a worker, a node or a driver."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.openai_server import OpenAIServer, user_text

from divcon import DivconError, Run, load_pipeline
from divcon.config import load_experiment
from divcon.distill import Base, stopping_after_steps
from divcon.distill.executors import Execution, Recipe, WorkerLost
from divcon.experiments import ExperimentRun

pytest.importorskip("ray", reason="Ray isn't installed; it is an extra")
import ray
from ray.cluster_utils import Cluster

from divcon.distill.executors import _pool
from divcon.distill.executors._cluster import RayError, connected, left, messages_of

DIVCON = Path(sys.executable).with_name("divcon")
HERE = {"node_ip_address": "127.0.0.2"}  # loopback too, and not the name that Ray takes for "whatever this machine is"
FILE = """\
task: {{name: word-problems, train: 12, test: 8}}
roles:
  teacher:
    {{model: openai/teacher, api_base: '{url}', api_key_env: TEACHER_KEY, retries: 0, price: {{input: 1, output: 2}}}}
  decomposer: {{base: embedded}}
  solver: {{model: openai/solver, api_base: '{url}', retries: 0}}
collect: {{samples: 2, concurrency: 6}}
screen: {{rule: oracle, samples: 2, concurrency: 6}}
evaluate: {{arms: [direct, cot, teacher], resamples: 100, concurrency: 6}}
"""


def answer(body: dict) -> str:
    text = user_text(body)
    digest = sum(text.encode())
    if "Split the question" in body["messages"][0]["content"]:
        return f"1. What is the amount number {digest % 97}?\n2. What follows from that?"
    return f"1. x\n2. y\nAnswer: {digest % 3}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head node, where drivers are, and a node with two CPUs."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["TEACHER_KEY"] = os.environ["OPENAI_API_KEY"] = "secret-of-the-teacher"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **HERE})
    made.add_node(num_cpus=2, **HERE)
    yield made
    ray.shutdown()
    made.shutdown()
    for name in ("TEACHER_KEY", "OPENAI_API_KEY"):
        os.environ.pop(name, None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "line.yaml"


def stations(run: Run) -> None:
    run.check()
    run.collect()
    run.screen()
    run.answers(run.arms())


def rows(folder: Path) -> dict[str, list]:
    """All that is stored, but for when and how long."""
    db = sqlite3.connect(folder / "run.sqlite")
    found = {
        "calls": db.execute("SELECT key, role, station, model, request, rollout, cost FROM calls ORDER BY key"),
        "traces": db.execute("SELECT * FROM traces ORDER BY item, sample"),
        "verdicts": db.execute("SELECT * FROM verdicts ORDER BY item, sample"),
    }
    kept: dict[str, list] = {table: cursor.fetchall() for table, cursor in found.items()}
    outcomes = db.execute("SELECT arm, fingerprint, item, record FROM outcomes ORDER BY arm, item").fetchall()
    timed = ("started", "seconds", "usage")
    kept["outcomes"] = [
        (*row, {key: value for key, value in json.loads(record).items() if key not in timed})
        for *row, record in outcomes
    ]
    return kept


def asked(server: OpenAIServer) -> Counter[str]:
    """What was asked how often, streamed or whole."""
    how = ("stream", "stream_options")
    bodies = ({key: value for key, value in body.items() if key not in how} for body in server.requests)
    return Counter(json.dumps(body, sort_keys=True) for body in bodies)


def reference(file: Path, folder: Path, server: OpenAIServer) -> tuple[dict[str, list], Counter[str]]:
    """The rows that threads leave, and what they ask."""
    file.write_text(FILE.format(url=server.url))
    run = Run(load_pipeline(file), folder)
    stations(run)
    found = rows(folder), asked(server)
    run.close()
    server.requests.clear()
    return found


def on_cluster(file: Path, folder: Path, cluster: Cluster, *more: str) -> Run:
    return Run(load_pipeline(file, ["run.executor=ray", f"run.address={cluster.address}", *more]), folder)


def workers() -> list[psutil.Process]:
    """The worker processes of the cluster that this process has started."""
    return [process for process in below() if "_WorkerActor" in " ".join(process.cmdline())]


def below() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def after(
    server: OpenAIServer, requests: int, do: Callable[[], None], going_on: Callable[[], bool] = lambda: True
) -> threading.Thread:
    """Do something once so many requests have come, while what sends them goes on."""

    def wait() -> None:
        while len(server.requests) < requests and going_on():
            time.sleep(0.01)
        do()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_workers_leave_the_rows_that_threads_leave(cluster: Cluster, file: Path, tmp_path: Path) -> None:
    with OpenAIServer(answer) as server:
        in_threads, once = reference(file, tmp_path / "threads", server)
        run = on_cluster(file, tmp_path / "ray", cluster)
        stations(run)
        assert rows(run.folder) == in_threads
        assert asked(server) == once
        assert set(server.keys) == {"Bearer secret-of-the-teacher"}, "workers have it in their environment"
        stations(run)  # everything is there
        assert asked(server) == once
        run.close()


def test_what_was_in_flight_on_a_worker_that_was_killed_is_asked_again_and_nothing_else(
    cluster: Cluster, file: Path, tmp_path: Path
) -> None:
    with OpenAIServer(answer, delay=0.15) as server:
        in_threads, once = reference(file, tmp_path / "threads", server)
        run = on_cluster(file, tmp_path / "ray", cluster, "run.workers=2")

        def kill() -> None:
            workers()[0].kill()

        killing = after(server, 20, kill)
        stations(run)
        killing.join()
        assert rows(run.folder) == in_threads
        assert sum((asked(server) - once).values()) <= 6, "no more than what was in flight"
        run.close()


def test_a_node_that_is_lost_takes_nothing_with_it(cluster: Cluster, file: Path, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=3, **HERE)
    cluster.wait_for_nodes()
    with OpenAIServer(answer, delay=0.15) as server:
        in_threads, once = reference(file, tmp_path / "threads", server)
        run = on_cluster(file, tmp_path / "ray", cluster, "run.workers=5")  # more than the other nodes have room for
        losing = after(server, 20, lambda: cluster.remove_node(node, allow_graceful=False))
        stations(run)
        losing.join()
        assert rows(run.folder) == in_threads
        assert sum((asked(server) - once).values()) <= 6
        run.close()
    # Ray ends this process where a thread of it still waits for a worker while the cluster is left.
    assert "divcon-hire" not in {thread.name for thread in threading.enumerate()}


def test_the_connection_lasts_until_all_have_left_it_and_keeps_what_sigterm_does(cluster: Cluster) -> None:
    before = signal.getsignal(signal.SIGTERM)
    users = object(), object()
    for user in users:
        connected(user, cluster.address)
    assert signal.getsignal(signal.SIGTERM) is before, "Ray's handler ends the process and loses what is in flight"
    left(users[0])
    assert ray.is_initialized()
    left(users[1])
    assert not ray.is_initialized()


def test_a_run_that_is_closed_ends_its_jobs_and_leaves_another_its_workers(
    cluster: Cluster, file: Path, tmp_path: Path
) -> None:
    with OpenAIServer(answer, delay=0.15) as server:
        in_threads, _ = reference(file, tmp_path / "threads", server)
        one, two = (on_cluster(file, tmp_path / name, cluster, "run.workers=1") for name in ("one", "two"))
        two.check()
        two.collect()
        ended: list[Exception] = []

        def collect() -> None:
            try:
                one.collect()
            except DivconError as error:
                ended.append(error)

        one.check()
        asked_before = len(server.requests)
        collecting = threading.Thread(target=collect)
        collecting.start()
        closing = after(server, asked_before + 6, one.context.executor.close)
        closing.join()
        collecting.join(30)
        assert not collecting.is_alive()
        [error] = ended
        assert isinstance(error, RayError) and "closed before its jobs ended" in error.problem
        one.close()
        stations(two)
        assert rows(two.folder) == in_threads
        two.close()


@pytest.mark.parametrize("good", [1, 0])
def test_a_worker_whose_start_fails_ends_the_run_only_where_no_other_comes(cluster: Cluster, good: int) -> None:
    class Failing:
        def __init__(self, recipe: dict, started: int) -> None:
            if recipe["arguments"]["good"] == 0:
                raise MemoryError("this node has no memory")
            time.sleep(2)

        def ready(self) -> bool:
            return True

    user = object()
    pool = None
    try:
        connected(user, cluster.address)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_pool, "_WorkerActor", Failing)
            pool = _pool.Pool(ray, Recipe("", {"good": 0}), None, Execution(executor="ray", worker_cpus=1), 1)
        if good:
            pool._recipe["arguments"]["good"] = 1
            pool._hire()
            assert pool._chosen("item").actor is not None
        else:
            with pytest.raises(RayError, match=r"Workers fail when they start: [\s\S]*no memory"):
                pool._chosen("item")
    finally:
        if pool is not None:
            pool.close()
        left(user)


def test_a_worker_that_ray_ends_for_its_memory_is_lost_like_another() -> None:
    def ended() -> Iterator[None]:
        raise ray.exceptions.OutOfMemoryError("a worker was killed")
        yield

    with pytest.raises(WorkerLost):
        list(messages_of(ended()))


def test_a_driver_that_was_killed_goes_on_where_it_was(cluster: Cluster, file: Path, tmp_path: Path) -> None:
    with OpenAIServer(answer, delay=0.15) as server:
        in_threads, once = reference(file, tmp_path / "threads", server)
        command = [str(DIVCON), "collect", str(file), "--run", str(tmp_path / "ray")]
        command += ["--set", "run.executor=ray", "--set", f"run.address={cluster.address}"]
        with (tmp_path / "said").open("w") as said:
            driver = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        killing = after(server, 10, driver.kill, lambda: driver.poll() is None)
        driver.wait()
        killing.join()
        assert driver.returncode == -signal.SIGKILL, (tmp_path / "said").read_text()
        run = on_cluster(file, tmp_path / "ray", cluster)
        stations(run)
        assert rows(run.folder) == in_threads
        assert sum((asked(server) - once).values()) <= 6
        run.close()


def test_a_key_that_a_worker_lacks_is_named(file: Path, tmp_path: Path, cluster: Cluster) -> None:
    with OpenAIServer(answer) as server:
        file.write_text(FILE.format(url=server.url).replace("TEACHER_KEY", "ANOTHER_KEY"))
        os.environ["ANOTHER_KEY"] = "k"  # here, and not where the cluster was started
        try:
            run = on_cluster(file, tmp_path / "ray", cluster)
            run.check()
            with pytest.raises(DivconError, match="ANOTHER_KEY is not set for a worker"):
                run.collect()
            run.close()
        finally:
            del os.environ["ANOTHER_KEY"]


def figures(lines: list[dict]) -> list[dict]:
    """What lines of a table say, but for how long it took."""
    measured = ("name", "label", "right", "wrong", "failed", "accuracy")
    used = [
        {
            role: {key: value for key, value in spent.items() if key != "seconds"}
            for role, spent in line["usage"].items()
        }
        for line in lines
    ]
    return [{key: line[key] for key in measured} | {"usage": spent} for line, spent in zip(lines, used, strict=True)]


EXPERIMENT = """\
experiment:
  kind: main
  tasks: {{words: {{name: word-problems, train: 12, test: 4}}}}
  seeds: [0, 1]
  arms: [cot, teacher, sd-t]
roles:
  teacher: {{model: openai/teacher, api_base: '{url}', retries: 0}}
  decomposer: {{base: {base}, max_tokens: 16}}
  solver: {{model: openai/solver, api_base: '{url}', retries: 0}}
collect: {{concurrency: 4}}
screen: {{rule: none}}
train: {{epochs: 1, batch_size: 4}}
evaluate: {{resamples: 100, concurrency: 4}}
"""


@pytest.mark.model
def test_a_worker_killed_in_the_middle_of_a_cell_costs_what_was_in_flight(
    cluster: Cluster, tiny_base: Base, tmp_path: Path
) -> None:
    file = tmp_path / "main.yaml"
    with OpenAIServer(answer, delay=0.15) as server:
        file.write_text(EXPERIMENT.format(url=server.url, base=tiny_base.path))
        one = ExperimentRun(load_experiment(file), tmp_path / "threads")
        wanted = one.run()
        in_threads, once = rows(one.folder), asked(server)
        one.close()
        server.requests.clear()
        overrides = ["run.executor=ray", f"run.address={cluster.address}", "run.cell_cpus=1", "run.workers=1"]
        other = ExperimentRun(load_experiment(file, overrides), tmp_path / "ray")

        def kill() -> None:
            cells = [process for process in below() if "_cell" in " ".join(process.cmdline())]
            cells[0].kill()

        killing = after(server, 6, kill)
        found = other.run()
        killing.join()
        assert rows(other.folder) == in_threads
        assert sum((asked(server) - once).values()) <= 8, "two cells of four calls at a time"
        other.close()
    assert figures(found["rows"]) == figures(wanted["rows"])
    assert [row["rows"] for row in found["screening"]] == [row["rows"] for row in wanted["screening"]]
    cells = {station for _, _, station, *_ in rows(other.folder)["calls"]}
    assert {"collect@words/seed-0", "collect@words/seed-1"} <= cells, "booked to their cells"


@pytest.mark.model
def test_ctrl_c_begins_no_other_cell(cluster: Cluster, tiny_base: Base, tmp_path: Path) -> None:
    file = tmp_path / "main.yaml"
    told: list[str] = []
    with OpenAIServer(answer, delay=0.15) as server:
        file.write_text(EXPERIMENT.format(url=server.url, base=tiny_base.path))
        one_at_a_time = ["run.executor=ray", f"run.address={cluster.address}", "run.cell_cpus=2", "run.workers=1"]
        run = ExperimentRun(load_experiment(file, one_at_a_time), tmp_path / "ray")
        stopping = after(server, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        with stopping_after_steps(lambda: told.append("stopping")), pytest.raises(KeyboardInterrupt):
            run.run()
        stopping.join()
        cells = {station.partition("@")[2] for _, _, station, *_ in rows(run.folder)["calls"]}
        assert len(cells) == 1, "the cell that had begun was finished"
        assert told == ["stopping"]
        assert len(list(run.folder.glob("cells/*/*/adapters/*/adapter_model.safetensors"))) == 1
        run.close()
