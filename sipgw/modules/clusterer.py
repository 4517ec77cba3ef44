"""clusterer: the servers of a cluster know each other, and which of them has a sharing tag. They meet in a Redis.

See ``redis/members.py``. OpenSIPS's servers talk with each other, by a protocol that sipgw does not speak
(docs/decisions/0020-no-cluster-protocol.md); here each writes into a Redis that all share (0044-dialogs-of-several-servers.md).
Other modules take a cluster by ``await clusterer.join(number)`` in their ``start``."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from sipgw.core.status import Identifier
from sipgw.exports import Module, event, mi, param, pvar, statistic
from sipgw.mi.commands import MIError
from sipgw.redis.members import Members
from sipgw.script.run import Run, Value

_NODES = "the servers of a cluster find each other in the Redis of cachedb_url: nobody lists them"
_LINKS = "there are no links between the servers: each meets the others in Redis"
_tag = re.compile(r"\s*([^\s/=]+)\s*/\s*(\d{1,9})\s*").fullmatch


def read_tag(text: str) -> tuple[str, int]:
    """The tag and the cluster in ``tag/cluster``."""
    found = _tag(text)
    if found is None or int(found[2]) < 1:
        raise ValueError(f"{text!r} is no sharing tag: write tag/cluster, such as vip/1")
    return found[1], int(found[2])


def read_state(text: str) -> tuple[str, int, bool]:
    """The tag, the cluster and the state in ``tag/cluster=active``."""
    name, equals, state = text.partition("=")
    if not equals or state.strip() not in ("active", "backup"):
        raise ValueError(f"{text!r} says nothing of a sharing tag: write tag/cluster=active or tag/cluster=backup")
    return (*read_tag(name), state.strip() == "active")


def _positive(value: int) -> None:
    if value < 1:
        raise ValueError("it must be at least 1")


def _unused(default: Any, why: str) -> Any:
    return param(default, "Not needed", unused=why)


class Clusterer(Module):
    """The clusters that this server is a member of."""

    cachedb_url: str = param("", "The Redis in which the servers meet: 'redis://127.0.0.1/'; not a parameter of OpenSIPS")
    my_node_id: int = param(-1, "The number of this server, another one for each server of the cluster; must be set")
    ping_interval: int = param(
        4, "Seconds after whose last sign of life a server counts as gone; it gives four in that time", check=_positive
    )
    sharing_tag: str = param(
        None, "A sharing tag and its state at the start: 'vip/1=active'", each="_add_tag", check=read_state
    )
    my_node_info: str = param(
        None, "What OpenSIPS tells of this server: 'cluster_id=1, description=left'; of that the description is shown",
        each="_describe",
    )
    neighbor_node_info: str = param(None, "Another server", unused=_NODES)
    enable_stats: int = param(1, "Count", unused="statistics are plain integers and always counted")
    db_mode: int = _unused(1, _NODES)
    db_url: str = _unused("", _NODES)
    db_table: str = _unused("clusterer", _NODES)
    db_bridges_table: str = _unused("clusterer_bridge", "there are no bridges between clusters")
    id_col: str = _unused("id", _NODES)
    cluster_id_col: str = _unused("cluster_id", _NODES)
    node_id_col: str = _unused("node_id", _NODES)
    url_col: str = _unused("url", _NODES)
    state_col: str = _unused("state", _NODES)
    no_ping_retries_col: str = _unused("no_ping_retries", _NODES)
    priority_col: str = _unused("priority", _NODES)
    sip_addr_col: str = _unused("sip_addr", _NODES)
    flags_col: str = _unused("flags", _NODES)
    description_col: str = _unused("description", _NODES)
    node_timeout: int = _unused(60, _LINKS)
    ping_timeout: int = _unused(1000, _LINKS)
    seed_fallback_interval: int = _unused(5, "what servers share is in Redis: no seed node has to have it first")
    sync_timeout: int = _unused(15, "what servers share is in Redis: it is read there")
    sync_packet_size: int = _unused(32768, "what servers share is in Redis: it is read there")
    dispatch_jobs: int = _unused(1, "there is one process")
    enable_rerouting: int = _unused(1, _LINKS)

    nodes = statistic("servers that are known, this one among them", name="clusterer_nodes", read="count")
    nodes_up = statistic("servers that are there", name="clusterer_nodes_up", read="count_up")
    nodes_down = statistic("servers that are gone", name="clusterer_nodes_down", read="count_down")

    node_changed = event("E_CLUSTERER_NODE_STATE_CHANGED", "cluster_id", "node_id", "new_state")
    tag_changed = event("E_CLUSTERER_SHARING_TAG_CHANGED", "name", "cluster", "state", "reason")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._tags: dict[int, dict[str, bool]] = {}
        self._description = ""
        super().__init__(server, **parameters)
        self.clusters: dict[int, Members] = {}
        self._redis: Any = None
        self._reports: Identifier | None = None

    def _add_tag(self, text: str) -> None:
        tag, cluster, active = read_state(text)
        self._tags.setdefault(cluster, {})[tag] = active

    def _describe(self, text: str) -> None:
        for part in text.split(","):
            name, _, value = part.partition("=")
            if name.strip() == "description":
                self._description = value.strip().replace(" ", "_")

    async def start(self) -> None:
        """Open Redis; be in the clusters of the tags."""
        if self.my_node_id < 1:
            raise ValueError('clusterer: modparam "my_node_id" is missing: a number above 0, another one for each server')
        if not self.cachedb_url:
            raise ValueError('clusterer: modparam "cachedb_url" is missing: servers meet in a Redis, such as redis://127.0.0.1/')
        self._redis = getattr(await self.server.user.caches.open(self.cachedb_url), "redis", None)
        if self._redis is None:
            raise ValueError("clusterer: cachedb_url must name a Redis: the others know no scripts")
        self._reports = self.server.user.status.group("clusterer").identifier("sharing_tags")
        for number in sorted(self._tags):
            await self.join(number)

    async def stop(self) -> None:
        """Give no more signs of life."""
        for cluster in self.clusters.values():
            cluster.stop()

    # -- for other modules

    async def join(self, number: int) -> Members:
        """The cluster of that number, which this server is a member of from now on."""
        found = self.clusters.get(number)
        if found is None:
            tags = self._tags.get(number, {})
            found = Members(
                self.server.user, self._redis, number, self.my_node_id, [tag for tag, active in tags.items() if active],
                life=float(self.ping_interval), name=self._description,
            )
            for tag in tags:
                found.has(tag)
            found.on_tag.append(partial(self._tag_turned, number))
            found.on_member.append(partial(self._member_turned, number))
            self.clusters[number] = found
            await found.start()
        return found

    # -- what happens

    def _tag_turned(self, cluster: int, tag: str, active: bool, why: str) -> None:
        state = "active" if active else "backup"
        if self._reports is not None:
            self._reports.report(f"TAG <{tag}>, cluster {cluster}, became {state} due to {why}")
        self.tag_changed.emit(name=tag, cluster=cluster, state=state, reason=why)

    def _member_turned(self, cluster: int, number: int, up: bool) -> None:
        self.node_changed.emit(cluster_id=cluster, node_id=number, new_state=int(up))

    # -- what is told

    def count(self) -> int:
        """How many servers are known."""
        return sum(len(cluster.seen) for cluster in self.clusters.values())

    def count_up(self) -> int:
        """How many servers are there."""
        return sum(len(cluster.alive) for cluster in self.clusters.values())

    def count_down(self) -> int:
        """How many servers are gone."""
        return self.count() - self.count_up()

    @pvar("cluster.sh_tag", set="set_sharing_tag", named=True, check=read_tag)
    def sharing_tag_of(self, run: Run, name: str) -> str | None:
        """``$cluster.sh_tag(tag/cluster)``: "active" or "backup"; assign "active" or 1 to take it."""
        found = self._find(run, name)
        if found is None:
            return None
        return "active" if found[0].has(found[1]) else "backup"

    def set_sharing_tag(self, run: Run, name: str, value: Value) -> None:
        """Take the tag."""
        found = self._find(run, name)
        if value not in (1, "active", "1"):
            run.user.log(-1, f"$cluster.sh_tag({name}) can only be made active: here by 1 or \"active\", elsewhere there")
        elif found is not None:
            found[0].take(found[1], "script variable")

    def _find(self, run: Run, name: str) -> tuple[Members, str] | None:
        try:
            tag, number = read_tag(name)
        except ValueError as error:
            run.user.log(-1, f"$cluster.sh_tag: {error}")
            return None
        cluster = self.clusters.get(number)
        return None if cluster is None else (cluster, tag)

    @mi(alias="clusterer_list_shtags")
    def list_shtags(self) -> Any:
        """The sharing tags that are known, and whether they are active here."""
        return [
            {"Tag": tag, "Cluster": number, "State": "active" if cluster.has(tag) else "backup"}
            for number, cluster in self.clusters.items() for tag in tuple(cluster.holders)
        ]

    @mi(alias="clusterer_shtag_set_active")
    def shtag_set_active(self, tag: str) -> None:
        """Let ``tag/cluster`` be active here, and nowhere else."""
        name, slash, number = tag.partition("/")
        if not slash or not name.strip():
            raise MIError(400, "Bad tag format <name/cluster_id>")
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", number):
            raise MIError(400, "Bad cluster ID in tag")
        cluster = self.clusters.get(int(number))
        if cluster is None:
            raise MIError(404, "Cluster ID not found")
        cluster.take(name.strip(), "MI command")

    @mi("list", alias="clusterer_list")
    def list_nodes(self) -> Any:
        """The other servers of each cluster."""
        return {"Clusters": [
            {"cluster_id": number, "Nodes": [
                self._node(cluster, node) for node in sorted(cluster.seen) if node != cluster.me
            ]}
            for number, cluster in self.clusters.items()
        ]}

    def _node(self, cluster: Members, node: int) -> dict[str, Any]:
        name = cluster.names.get(node, "-")
        return {
            "node_id": node, "link_state": "Up" if node in cluster.alive else "Down",
            "description": None if name in ("", "-") else name,
            "last_seen": int(self.server.user.wall_clock() - self.server.user.clock() + cluster.seen[node]),
        }
