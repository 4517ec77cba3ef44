"""Tests of sipgw.core.pipes: what each algorithm lets through, as OpenSIPS was seen to."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.pipes import Feedback, Measure, Pipe, Pipes

SECOND = Measure(interval=1)


def passed(pipe: Pipe, times: int, now: float, feedback: Feedback | None = None) -> str:
    """What becomes of so many at once: + and -."""
    return "".join("-+"[pipe.passes(pipe.add(now), 0, feedback or Feedback())] for _ in range(times))


class PipeTests(SynchronousTestCase):
    """One pipe at a time."""

    def test_taildrop(self) -> None:
        """The limit of an interval passes, then nothing until the next."""
        pipe = Pipe("a", "TAILDROP", 3, SECOND, False, 0)
        self.assertEqual([passed(pipe, 6, now) for now in (0.5, 1.2)], ["+++---"] * 2)
        pipe = Pipe("a", "TAILDROP", 3, Measure(interval=2), False, 0)
        self.assertEqual(passed(pipe, 8, 0), "++++++--")
        pipe = Pipe("a", "TAILDROP", 3, Measure(interval=2, whole=True), False, 0)
        self.assertEqual(passed(pipe, 6, 0), "+++---")
        self.assertEqual([passed(Pipe("a", "TAILDROP", limit, SECOND, False, 0), 2, 0) for limit in (0, -1)], ["--", "--"])

    def test_red(self) -> None:
        """Each n-th passes, by what the interval before was over the limit."""
        for measure, rounds in (
            (SECOND, ["+" * 14, "---+---+---+--", "---+---", "-+-+-+", "-+-+-", "+++", "++", "", "+" * 14]),
            (Measure(interval=2), ["+" * 14, "-+-+-+-+-+-+-+", "-+-+-+-", "++++++", "+++++"]),
            (Measure(interval=2, whole=True), ["+" * 14, "---+---+---+--", "---+---", "-+-+-+"]),
        ):
            pipe = Pipe("a", "RED", 3, measure, False, 0)
            for number, wanted in enumerate(rounds):
                self.assertEqual(passed(pipe, len(wanted), number * measure.interval + 0.1), wanted, (measure, number))
        self.assertEqual(passed(Pipe("a", "RED", 0, SECOND, False, 0), 3, 0), "+++")

    def test_slots(self) -> None:
        """A window moves on slot by slot; what is taken or reset is not counted."""
        pipe = Pipe("a", "SBT", 3, Measure(window=1, slot=100), False, 0)
        self.assertEqual(passed(pipe, 2, 10.05), "++")
        self.assertEqual(passed(pipe, 3, 10.55), "+--")
        self.assertEqual((pipe.read(10.98), pipe.read(11.04), pipe.read(11.6)), (5, 3, 0))
        self.assertEqual(passed(pipe, 4, 20), "+++-")
        pipe.take(20.2)
        self.assertEqual(pipe.read(20.2), 3)
        pipe.reset(20.2)
        pipe.take(20.2)
        self.assertEqual((pipe.read(20.2), passed(pipe, 4, 20.2)), (0, "+++-"))

    def test_network(self) -> None:
        """What waits in the buffers decides."""
        pipe = Pipe("a", "NETWORK", 1000, SECOND, False, 0)
        self.assertEqual([pipe.passes(1, octets, Feedback()) for octets in (0, 1000, 1001)], [True, True, False])

    def test_take(self) -> None:
        """No count goes below 0; what was counted in an older interval is gone."""
        pipe = Pipe("a", "TAILDROP", 3, SECOND, False, 0)
        pipe.add(0)
        pipe.take(0)
        pipe.take(0)
        self.assertEqual(pipe.read(0), 0)
        pipe.add(0)
        self.assertEqual((pipe.read(1), pipe.last, pipe.read(3), pipe.last), (0, 1, 0, 0))

    def test_feedback(self) -> None:
        """Above the limit more and more is dropped, below it less and less; idle time is not saved up."""
        feedback = Feedback()
        pipe = Pipe("a", "FEEDBACK", 50, SECOND, False, 0)
        feedback.note(0.9)
        self.assertEqual(feedback.rate, 0)
        feedback.limit = 50
        for _ in range(100):
            feedback.note(0.1)
        rates = []
        for load in (0.9, 0.9, 0.9, 0.3, 0.1, 0.1, 0.1):
            feedback.note(load)
            rates.append(feedback.rate)
        self.assertEqual(rates, [10, 20, 30, 25, 15, 5, 0])
        for _ in range(20):
            feedback.note(0.9)
        self.assertEqual((feedback.rate, passed(pipe, 100, 0, feedback)), (100, "-" * 100))
        feedback.rate = 30
        self.assertEqual(passed(pipe, 200, 0, feedback).count("-"), 60)
        feedback.ki, feedback.kp, feedback.kd = 0.0, -100.0, -50.0
        feedback.note(0.7)
        self.assertEqual(feedback.rate, 10)  # kp gives 20, the change from -0.4 to -0.2 takes 10

    def test_pipes(self) -> None:
        """What nobody uses is forgotten after its time, or for others where there are too many."""
        pipes = Pipes(Measure(expires=10), size=3)
        for now, name in enumerate("abc"):
            pipes.make(name, "TAILDROP", 1, False, now)
        pipes.use("a", 3)
        pipes.make("d", "TAILDROP", 1, False, 4)
        self.assertEqual([pipe.name for pipe in pipes.all()], ["c", "a", "d"])
        pipes.sweep(13)
        self.assertEqual(([pipe.name for pipe in pipes.all()], len(pipes)), (["d"], 1))
        self.assertIsNone(pipes.use("a", 13))
