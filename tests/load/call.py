"""A caller's side of one call (RFC 3261 13.2, 9.1)."""

from itertools import count

from tests.load.phone import Exchange

SERIAL = count(1)


class Call:
    """Calls ``user``; ``done(status)`` once, when all of it is over: that of the INVITE, 0 if none came.

    ``cancel_at``: give up at the first response of this status or above, or some time after a lesser one. ``talks``: hang up
    after ``timing.talk``; else leave without a word once it is answered. ``acknowledges``: send ACK."""

    def __init__(self, phone, user, done, *, cancel_at=0, acknowledges=True, talks=True):
        self.phone, self.done = phone, done
        self.cancel_at, self.acknowledges, self.talks = cancel_at, acknowledges, talks
        self.uri = f"sip:{user}@{phone.domain}"
        self.call_id = f"{phone.end.port}c{next(SERIAL)}"
        self.cancelled = False
        self.acks = {}
        self.status = None
        contact = f"Contact: <{phone.contact('caller')}>\r\n"
        data, self.branch = phone.request("INVITE", self.uri, to=self.uri, call_id=self.call_id, more=contact)
        self.exchange = Exchange(phone, "INVITE", self.branch, data, self.hear)

    def finish(self, status):
        """Tell, once."""
        if self.done is not None:
            done, self.done = self.done, None
            done(status)

    def hear(self, message):
        """Take a response to the INVITE."""
        if message is None:
            self.finish(0)
        elif message.status < 200:
            if self.cancel_at:
                self.phone.later(0 if message.status >= self.cancel_at else 4 * self.phone.timing.ring, self.cancel)
        elif not self.acknowledges:
            if not self.acks:
                self.acks["none"] = b""
                self.finish(message.status)
        elif message.to in self.acks:
            self.phone.send(self.acks[message.to])
        elif message.status >= 300:
            tag = ";tag=" + message.to.partition(";tag=")[2]
            data, _ = self.phone.request("ACK", self.uri, to=self.uri, call_id=self.call_id, tag=tag, branch=self.branch)
            self.acks[message.to] = data
            self.phone.send(data)
            self.finish(message.status)
        else:
            self.answered(message)

    def cancel(self):
        """Give up, once, unless it is too late."""
        if self.cancelled or self.exchange.final is not None:
            return
        self.cancelled = True
        data, _ = self.phone.request("CANCEL", self.uri, to=self.uri, call_id=self.call_id, branch=self.branch)
        Exchange(self.phone, "CANCEL", self.branch, data, lambda message: None)

    def answered(self, message):
        """Acknowledge an answer, and hang up some time later: at once, if it was to be cancelled or is the second one."""
        tag = ";tag=" + message.to.partition(";tag=")[2]
        target = message.values["contact"][0].strip("<>")
        routes = [route for value in reversed(message.values["record-route"]) for route in reversed(value.split(","))]
        same = {"to": self.uri, "call_id": self.call_id, "tag": tag, "routes": routes}
        self.acks[message.to], _ = self.phone.request("ACK", target, **same)
        self.phone.send(self.acks[message.to])
        second, self.status = self.status is not None, message.status
        if not self.talks:
            self.finish(message.status)
            return

        def ended(status):
            if not second:
                self.finish(message.status if status == 200 else -status)

        def hang_up():
            self.phone.ask("BYE", target, ended, cseq=2, **same)

        self.phone.later(0.0 if self.cancelled or second else self.phone.timing.talk, hang_up)
