"""The state of health as bytes and back, so that a process that starts knows what the others know."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import orjson

from kameng_api.suppliers.routing.evidence import PENDING, Law, Suspect, Times, Trace, Weighing
from kameng_api.suppliers.routing.facts import ChannelFacts, Circuit
from kameng_api.suppliers.routing.track import ChannelHealth, Rate, Track
from kameng_api.suppliers.routing.tuning import Tuning

_FORM: Final = 1
_PLAIN: Final = (
    "answered", "base_answered", "base_good", "changed", "doubted", "fresh_from", "gap_s", "good", "half_life_s",
    "looked_at", "opened_at", "pending", "probed_at", "probes", "since", "stamp", "window",
)  # fmt: skip
_CHANNEL: Final = ("busy_at", "demand", "freezes", "frozen_s", "heard_at", "limit", "p_reference", "swept_at")


def dump_state(tick: int, channels: Mapping[str, ChannelHealth], demand: Mapping[str, Rate]) -> bytes:
    """Everything that a decision or a later event may depend on."""
    return orjson.dumps(
        {
            "form": _FORM,
            "tick": tick,
            "channels": {name: _channel_out(channel) for name, channel in channels.items()},
            "demand": {sku: _rate_out(rate) for sku, rate in demand.items()},
        }
    )


def load_state(snapshot: bytes, tuning: Tuning) -> tuple[int, dict[str, ChannelHealth], dict[str, Rate]]:
    """(tick, channels, demand); raises ValueError when the snapshot is of another form or damaged."""
    try:
        found: dict[str, Any] = orjson.loads(snapshot)
        if found["form"] != _FORM:
            raise ValueError(f"snapshot of form {found['form']}, not {_FORM}")
        channels = {name: _channel_in(each, tuning) for name, each in found["channels"].items()}
        return found["tick"], channels, {sku: _rate_in(each) for sku, each in found["demand"].items()}
    except (KeyError, TypeError, IndexError) as trouble:
        raise ValueError(f"damaged snapshot: {trouble!r}") from trouble


def _channel_out(channel: ChannelHealth) -> dict[str, Any]:
    tracks = [channel.track, *channel.skus.values()]
    places: dict[int, int] = {}
    traces: list[Trace] = []
    for trace in [*channel.known.values(), *(trace for track in tracks for trace in track.traces)]:
        if places.setdefault(id(trace), len(traces)) == len(traces):
            traces.append(trace)
    return {
        **{name: getattr(channel, name) for name in _CHANNEL},
        "law": asdict(channel.law),
        "rate": _rate_out(channel.rate),
        "known": len(channel.known),
        "live": [places[id(trace)] for trace in channel.live.values()],
        "traces": [_trace_out(trace) for trace in traces],
        "track": _track_out(channel.track, places),
        "skus": {sku: _track_out(track, places) for sku, track in channel.skus.items()},
    }


def _channel_in(found: dict[str, Any], tuning: Tuning) -> ChannelHealth:
    channel = ChannelHealth(ChannelFacts(), 0.0, tuning)
    for name in _CHANNEL:
        setattr(channel, name, found[name])
    channel.law = Law(**found["law"])
    channel.rate = _rate_in(found["rate"])
    traces = [_trace_in(each) for each in found["traces"]]
    channel.known = {trace.attempt: trace for trace in traces[: found["known"]]}
    channel.live = {traces[place].attempt: traces[place] for place in found["live"]}
    channel.track = _track_in(found["track"], traces)
    channel.skus = {sku: _track_in(each, traces) for sku, each in found["skus"].items()}
    return channel


def _rate_out(rate: Rate) -> list[float]:
    return [rate.born_at, rate.count, rate.half_life_s, rate.stamp]


def _rate_in(found: list[float]) -> Rate:
    rate = Rate(found[0], found[2])
    rate.count, rate.stamp = found[1], found[3]
    return rate


def _trace_out(trace: Trace) -> list[Any]:
    return [trace.attempt, trace.sku, trace.sent_at, trace.state, trace.heard_at, trace.doubt_at, trace.probe, trace.apart, trace.crowd]


def _trace_in(found: list[Any]) -> Trace:
    trace = Trace(found[0], found[1], found[2], found[6])
    trace.state, trace.heard_at, trace.doubt_at, trace.apart = found[3] or PENDING, found[4], found[5], found[7]
    trace.crowd = found[8]
    return trace


def _track_out(track: Track, places: Mapping[int, int]) -> dict[str, Any]:
    return {
        **{name: getattr(track, name) for name in _PLAIN},
        "circuit": track.circuit.value,
        "settled": list(track.settled),
        "times": [track.times.n, track.times.total, track.times.squares],
        "traces": [places[id(trace)] for trace in track.traces],
        "weighing": asdict(track.weighing),
        "suspect": None if track.suspect is None else asdict(track.suspect),
    }


def _track_in(found: dict[str, Any], traces: list[Trace]) -> Track:
    track = Track(0.0, found["half_life_s"], found["window"])
    for name in _PLAIN:
        setattr(track, name, found[name])
    track.circuit = Circuit(found["circuit"])
    track.settled = tuple(found["settled"])
    track.times = Times(*found["times"])
    track.traces = [traces[place] for place in found["traces"]]
    track.weighing = Weighing(**{**found["weighing"], "settled": tuple(found["weighing"]["settled"])})
    track.suspect = None if found["suspect"] is None else Suspect(**found["suspect"])
    return track
