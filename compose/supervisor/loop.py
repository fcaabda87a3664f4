"""The supervisor's loop: one thread, one `select`, no polling once everything is ready.

What can happen: a signal arrives (stop, or a child ended), a child wrote to its log, a pause is
over, a starting child may have become ready, the time for the start is over.
"""

import json
import os
import selectors
import signal
import time

from compose.supervisor.bounded_log import BoundedLog
from compose.supervisor.child import Watched
from compose.supervisor.plan import Plan
from compose.supervisor.probe import answers, http

_POLL_S = 0.02  # between questions to a starting child
_GIVE_UP_DEATHS = 3  # deaths in a row of a child that never worked
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def supervise(plan_file: str, lock: int) -> int:
    """Run the plan until a signal ends it; the exit status."""
    with open(plan_file, encoding="utf-8") as file:  # noqa: PTH123 - no pathlib in this process
        plan = Plan.from_json(file.read())
    os.set_inheritable(lock, False)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return _Supervisor(plan).run()


class _Supervisor:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._began = time.monotonic() - max(0.0, time.time() - plan.started_at)
        self._phase = "starting"
        self._ready_s = 0.0
        self._stops = 0  # how often we were asked to stop
        self._own_log = self._log("supervisor")
        self._children = [Watched(child, self._log(child.name)) for child in plan.children]
        self._selector = selectors.DefaultSelector()
        self._wakeup, wakeup_writer = os.pipe()
        for end in (self._wakeup, wakeup_writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wakeup_writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _STOP_SIGNALS:
            signal.signal(number, self._asked_to_stop)
        self._selector.register(self._wakeup, selectors.EVENT_READ, None)

    def _log(self, name: str) -> BoundedLog:
        return BoundedLog(f"{self._plan.log_folder}/{name}.log", self._plan.log_max_bytes)

    def _asked_to_stop(self, *_: object) -> None:
        self._stops += 1

    # -- the loop --------------------------------------------------------------------------------

    def run(self) -> int:
        self._note()
        failed = False
        while not self._stops and not failed:
            self._start_due()
            failed = self._start_failed()
            self._turn(self._until_next())
            self._bury_the_dead()
            self._see_who_is_ready()
        self._stop_all()
        self._phase = "failed" if failed else "stopped"
        self._note()
        self._say("stopped" if not failed else "stopped: the gateway could not start")
        return 1 if failed else 0

    def _turn(self, timeout_s: float | None) -> None:
        """Wait for something to happen, and carry logs meanwhile."""
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                self._emptied(self._wakeup)
            elif not key.data.pump():
                self._unplug(key.data)

    def _emptied(self, pipe: int) -> None:
        try:
            os.read(pipe, 4096)
        except BlockingIOError:
            return

    def _unplug(self, watched: Watched) -> None:
        if watched.output >= 0:
            self._selector.unregister(watched.output)
            os.close(watched.output)
            watched.output = -1

    def _until_next(self) -> float | None:
        """How long nothing needs to be done, seconds; None: until a signal."""
        states = {watched.state for watched in self._children}
        if "starting" in states or "waiting" in states:
            return _POLL_S
        pauses = [one.due - time.monotonic() for one in self._children if one.state == "pausing"]
        return max(0.0, min(pauses)) if pauses else None

    # -- starting --------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for watched in self._children:
            if watched.state == "pausing" and now >= watched.due:
                watched.state, watched.due = "waiting", now
                watched.restarts += 1
            if watched.state == "waiting":
                after = watched.child.after
                patient = self._phase == "starting" or now - watched.due < (
                    watched.child.after_limit_s
                )
                if after and patient and not answers(after):
                    continue
                self._start(watched)

    def _start(self, watched: Watched) -> None:
        try:
            watched.start()
        except OSError as error:
            watched.last_exit = f"cannot be executed: {error.strerror}"
            watched.log.write(f"{watched.child.argv[0]}: {error.strerror}\n".encode())
            self._after_death(watched)
            return
        self._selector.register(watched.output, selectors.EVENT_READ, watched)
        self._note()

    def _see_who_is_ready(self) -> None:
        for watched in self._children:
            if watched.state != "starting" or not answers(watched.child.ready):
                continue
            took = time.monotonic() - watched.started
            first, watched.state, watched.was_ready = not watched.was_ready, "ready", True
            again = "" if first else " again"
            self._say(f"{watched.child.name:<14} ready{again} after {took:.1f} s")
            self._note()
        if self._phase == "starting" and all(one.state == "ready" for one in self._children):
            self._phase = "ready"
            self._ready_s = time.monotonic() - self._began
            self._note()
            self._say(f"ready in {self._ready_s:.1f} s")
            for line in self._plan.banner:  # may hold a password: not for the log
                _print(line)

    def _start_failed(self) -> bool:
        if self._phase != "starting":
            return False
        for watched in self._children:
            if not watched.was_ready and watched.deaths >= _GIVE_UP_DEATHS:
                self._say(f"{watched.child.name} does not start; {watched.log.path} ends with:")
                self._say("\n".join(f"  {line}" for line in watched.log.tail))
                return True
        if time.monotonic() - self._began > self._plan.start_timeout_s:
            late = ", ".join(one.child.name for one in self._children if one.state != "ready")
            self._say(
                f"not ready within {self._plan.start_timeout_s:g} s: {late};"
                f" read the logs in {self._plan.log_folder}, or raise SIGNALBOX_START_TIMEOUT_S"
            )
            return True
        return False

    # -- dying -----------------------------------------------------------------------------------

    def _bury_the_dead(self) -> None:
        for watched in self._children:
            if watched.ended():
                while watched.output >= 0 and watched.pump():
                    if not self._readable(watched.output):  # a grandchild holds the pipe open
                        break
                self._unplug(watched)
                self._after_death(watched)

    def _readable(self, pipe: int) -> bool:
        with selectors.DefaultSelector() as waiting:
            waiting.register(pipe, selectors.EVENT_READ)
            return bool(waiting.select(0))

    def _after_death(self, watched: Watched) -> None:
        name, pid = watched.child.name, watched.pid
        pause = watched.bury(self._plan.restart_pause_s, self._plan.restart_pause_max_s)
        self._say(f"{name} (pid {pid}) {watched.last_exit}; starting it again in {pause:.1f} s")
        self._note()

    # -- stopping --------------------------------------------------------------------------------

    def _stop_all(self) -> None:
        self._phase = "stopping"
        self._note()
        asked = self._stops
        for watched in reversed(self._children):
            if watched.pid:
                if watched.child.drain and watched.state == "ready":
                    self._drain(watched, asked)
                self._stop(watched, asked)
            watched.state = "stopped"
            watched.close()

    def _hurried(self, asked: int) -> bool:
        """Asked to stop once more: no patience."""
        return self._stops > max(asked, 1)

    def _drain(self, watched: Watched, asked: int) -> None:
        drain = watched.child.drain
        if drain is None or drain.limit_s <= 0:
            return
        admin = ("127.0.0.1", drain.admin_port)
        http(*admin, "POST", "/healthcheck/fail")
        http(*admin, "POST", "/drain_listeners?graceful&skip_exit")
        deadline = time.monotonic() + drain.limit_s
        while time.monotonic() < deadline and not self._hurried(asked) and not watched.ended():
            _, stats = http(*admin, "GET", "/stats?filter=downstream_rq_active$")
            active = sum(
                int(line.rpartition(": ")[2])
                for line in stats.splitlines()
                if line.startswith("http.") and not line.startswith("http.admin.")
            )
            if not active:
                return
            self._turn(_POLL_S * 2)
        if not self._hurried(asked) and not watched.ended():
            self._say(f"{watched.child.name}: requests still in flight are cut off")

    def _stop(self, watched: Watched, asked: int) -> None:
        watched.send(signal.SIGTERM)
        deadline = time.monotonic() + self._plan.stop_timeout_s
        while not watched.ended():
            left = deadline - time.monotonic()
            if left <= 0 or self._hurried(asked):
                self._say(f"{watched.child.name} (pid {watched.pid}) does not stop: killing it")
                watched.send(signal.SIGKILL)
                deadline = time.monotonic() + self._plan.stop_timeout_s
                asked = self._stops
            self._turn(min(max(left, 0.0), 0.5))
        while watched.output >= 0 and self._readable(watched.output) and watched.pump():
            pass
        self._unplug(watched)
        watched.pid = 0
        self._note()

    # -- telling ---------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self._own_log.write("".join(f"{stamp} {one}\n" for one in text.splitlines()).encode())
        _print(text)

    def _note(self) -> None:
        """Write the state, for `status` and `down`; whole or not at all."""
        state = {
            "pid": os.getpid(),
            "phase": self._phase,
            "started_at": self._plan.started_at,
            "ready_s": round(self._ready_s, 3),
            "children": [
                {
                    "name": one.child.name,
                    "pid": one.pid,
                    "state": one.state,
                    "restarts": one.restarts,
                    "last_exit": one.last_exit,
                }
                for one in self._children
            ],
        }
        path = f"{self._plan.run_folder}/state.json"
        try:
            with open(path + ".new", "w", encoding="utf-8") as file:  # noqa: PTH123
                json.dump(state, file)
            os.replace(path + ".new", path)  # noqa: PTH105
        except OSError as error:  # a full disk must not end the gateway
            _print(f"the state cannot be written: {error}")


def _print(text: str) -> None:
    """For whoever ran `up`; nobody may be there any more (`signalbox up | head`)."""
    try:
        os.write(1, f"{text}\n".encode())
    except OSError:
        return
