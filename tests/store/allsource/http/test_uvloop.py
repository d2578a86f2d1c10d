"""The main tests of the HTTP engine on uvloop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from allsource_auth import Timeouts, Tls
from tests.store.allsource.http import test_cancellation as cancellation
from tests.store.allsource.http import test_limits as limits
from tests.store.allsource.http import test_replies as replies
from tests.store.allsource.http import test_reuse as reuse
from tests.store.allsource.http import test_tls as tls
from tests.store.allsource.http.clients import get, post

Test = Callable[..., Awaitable[None]]

# Test functions, each with the arguments of one or of several runs.
WITHOUT_TLS: dict[Test, list[tuple[object, ...]]] = {
    replies.test_valid_reply_is_received_whole: [(case,) for case in replies.RIGHT],
    replies.test_malformed_reply_is_an_error_and_ends_the_connection: [(raw,) for raw in replies.MALFORMED.values()],
    replies.test_reply_cut_at_any_byte_is_an_error: [(replies.REPLY_300, by_reset, 9) for by_reset in (False, True)],
    replies.test_body_without_a_length_ends_with_the_connection: [()],
    replies.test_reply_to_head_has_no_body: [()],
    replies.test_server_may_answer_before_it_has_read_the_request: [()],
    replies.test_refusal_of_a_large_request_is_received: [()],
    replies.test_reset_in_the_middle_of_a_reply_is_an_error: [()],
    replies.test_reset_before_the_first_request_is_an_error: [()],
    reuse.test_last_used_connection_is_used_first: [()],
    reuse.test_close_of_an_idle_connection_is_noticed_when_it_happens: [()],
    reuse.test_read_on_a_stale_connection_is_sent_again_at_once: [()],
    reuse.test_append_on_a_stale_connection_is_ambiguous_and_sent_once: [()],
    reuse.test_connection_closed_in_the_same_moment_fails_no_request: [(socket.SHUT_RDWR,), (socket.SHUT_WR,)],
    reuse.test_connection_closed_at_a_random_moment_fails_no_read: [()],
    reuse.test_second_reply_in_the_same_segment_reaches_no_caller: [(get,), (post,)],
    reuse.test_second_reply_on_an_idle_connection_reaches_no_caller: [(get,), (post,)],
    limits.test_endless_head_is_an_error: [(case,) for case in limits.ENDLESS_HEADS],
    limits.test_endless_body_is_an_error: [(case,) for case in limits.ENDLESS_BODIES],
    limits.test_endless_trickle_fails_at_the_total_limit: [("body",)],
    limits.test_server_that_never_answers_has_a_limit: [(Timeouts(connect=30, read=0.05, total=30), "read")],
    limits.test_server_that_never_reads_has_a_limit: [(Timeouts(connect=30, read=0.1, total=30), "read")],
    cancellation.test_random_cancellations_lose_no_slot_and_mix_up_no_replies: [()],
    cancellation.test_request_cancelled_at_any_step_leaves_nothing_open: [(steps,) for steps in range(12)],
}


def run(test: Test, *arguments: object) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        await test(*arguments)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("test", WITHOUT_TLS, ids=lambda test: test.__name__.removeprefix("test_"))
def test_engine_works_on_uvloop(test: Test) -> None:
    for arguments in WITHOUT_TLS[test]:
        run(test, *arguments)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def test_tls_works_on_uvloop(ca: trustme.CA, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(file)
    trusted = Tls(ca_file=file, ca_only=True)
    for version in tls.BOTH_VERSIONS:
        run(tls.test_requests_over_tls_share_a_connection, ca, trusted, version)
        run(tls.test_error_says_that_a_client_certificate_is_missing, ca, trusted, version)
    run(tls.test_close_without_close_notify_fails_no_later_request, ca, trusted)
    run(tls.test_many_handshakes_at_once, ca, trusted)
    for sent in (b"", b"\x16\x03\x03\x00\x05"):
        run(tls.test_connection_closed_in_the_handshake_is_an_error, trusted, sent)
