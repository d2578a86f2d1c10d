"""Error replies: the error of each, whether the request is retried, and which text is repeated."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from allsource_auth import Api, RateLimited, Unauthorized, Unavailable, VersionConflict
from allsource_auth.store.allsource.http import Reply
from allsource_auth.store.allsource.responses import classify
from tests.store.allsource.error_bodies import ADMISSION, PAGE, UNCERTAIN, error_body
from tests.support.canaries import CANARY

pytestmark = pytest.mark.usefixtures("watch")

URL = "http://localhost:3900"


def reply(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, body, (headers or {}).get, 0.0)


# Classification


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize(
    ("headers", "retry_after", "again"),
    [
        ({}, None, 1.0),
        ({"retry-after": "0"}, 0.0, 0.0),
        ({"retry-after": "2.5"}, 2.5, 2.5),
        ({"retry-after": "30"}, 30.0, 30.0),
        ({"retry-after": "31"}, 31.0, None),
        ({"retry-after": "-1"}, None, 1.0),
        ({"retry-after": "nan"}, None, 1.0),
        ({"retry-after": "inf"}, None, 1.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None, 1.0),
    ],
)
@pytest.mark.parametrize("body", [b"", b"Rate limit exceeded. Limit: 600 requests/min"])
def test_429_is_unambiguous_and_follows_retry_after(
    writes: bool, headers: dict[str, str], retry_after: float | None, again: float | None, body: bytes
) -> None:
    error, wait = classify(reply(429, body, headers), writes=writes)
    assert isinstance(error, RateLimited)
    assert (error.status, error.ambiguous, error.retry_after, wait) == (429, False, retry_after, again)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", [b"Missing authorization header", b"", b'{"error":{"code":"unauthorized"}}', PAGE])
def test_refused_credential_is_unauthorized(status: int, body: bytes) -> None:
    for writes in (False, True):
        error, again = classify(reply(status, body), writes=writes)
        assert isinstance(error, Unauthorized)
        assert (error.status, error.ambiguous, again) == (status, False, None)
        assert str(error) == f"the server refused the credential ({status})"


def test_version_conflict_has_both_versions() -> None:
    body = error_body(error="version_conflict", expected_version=3, current_version=5)
    error, again = classify(reply(409, body), writes=True)
    assert isinstance(error, VersionConflict)
    assert (error.expected, error.actual, error.stream, error.ambiguous, again) == (3, 5, None, False, None)


@pytest.mark.parametrize(
    "body",
    [
        error_body(error="read_only", message="this node is a follower"),
        error_body(error="Already exists: projection"),
        error_body(error="version_conflict"),
        error_body(error="version_conflict", expected_version="3", current_version=5),
        b"",
        PAGE,
    ],
)
def test_other_409_is_no_version_conflict(body: bytes) -> None:
    error, again = classify(reply(409, body), writes=True)
    assert type(error) is Api
    assert (error.status, error.ambiguous, again) == (409, False, None)


@pytest.mark.parametrize(
    ("body", "headers", "again"),
    [
        (ADMISSION, {}, 0.05),
        (b'{"error":"Queue full: Conditional archive admission timed out"}', {}, 0.05),
        (b'{"error":"Queue full: archive workers unavailable"}', {}, 0.05),
        (b'{"error":"archive_index_incomplete","remaining_files":3,"stopped_by":"time"}', {}, 1.0),
        (b'{"error":"archive_index_incomplete","remaining_files":3}', {"retry-after": "2"}, 2.0),
        (b'{"error":"archive_index_incomplete","remaining_files":3}', {"retry-after": "300"}, None),
        (b'{"error":"read_model_busy"}', {"retry-after": "1"}, 1.0),
    ],
)
def test_503_of_a_server_that_is_not_ready_is_retried(
    body: bytes, headers: dict[str, str], again: float | None
) -> None:
    for writes in (False, True):
        error, wait = classify(reply(503, body, headers), writes=writes)
        assert isinstance(error, Unavailable)
        assert (error.status, error.ambiguous, wait) == (503, False, again)


@pytest.mark.parametrize("writes", [False, True])
def test_503_with_uncertain_outcome_is_ambiguous_for_a_write(writes: bool) -> None:
    error, again = classify(reply(503, UNCERTAIN), writes=writes)
    assert isinstance(error, Unavailable)
    assert (error.ambiguous, again) == (writes, None)


@pytest.mark.parametrize(
    ("body", "setting"),
    [
        (error_body(error="archive_hydration_refused", needed_bytes=9, available_bytes=1), "MEMORY_RESERVE_BYTES"),
        (error_body(error="archive_budget_exceeded", dimension="decoded_bytes"), "STRICT_ARCHIVE_MAX_DECODED_BYTES"),
    ],
)
@pytest.mark.parametrize("wait", ["1", "5", "30", "300"])
def test_503_that_needs_an_operator_names_the_setting(body: bytes, setting: str, wait: str) -> None:
    for writes in (False, True):
        error, again = classify(reply(503, body, {"retry-after": wait}), writes=writes)
        assert isinstance(error, Unavailable)
        assert f"ALLSOURCE_{setting}" in str(error)
        assert (error.ambiguous, again) == (False, None)


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("body", [PAGE, b"", b"upstream timed out", b'{"error":"Storage error: read-only"}'])
def test_gateway_errors_are_retried_for_reads_only(status: int, body: bytes) -> None:
    error, again = classify(reply(status, body), writes=False)
    assert isinstance(error, Unavailable)
    assert (error.status, error.ambiguous, again) == (status, False, 0.05)
    error, again = classify(reply(status, body), writes=True)
    assert isinstance(error, Unavailable)
    assert (error.status, error.ambiguous, again) == (status, True, None)


@pytest.mark.parametrize("status", [500, 501, 507])
def test_500_is_ambiguous_for_a_write(status: int) -> None:
    body = b'{"error":"Internal error: worker gone"}'
    for writes in (False, True):
        error, again = classify(reply(status, body), writes=writes)
        assert type(error) is Api
        assert (error.status, error.ambiguous, again) == (status, writes, None)


@pytest.mark.parametrize("status", [204, 301, 302, 304, 307, 308, 400, 404, 405, 413, 415, 422])
@pytest.mark.parametrize("body", [b"", PAGE, b'{"error":"Validation error: no"}', b"[1]", b"null", b"7", b'"word"'])
def test_any_other_status_is_an_api_error(status: int, body: bytes) -> None:
    for writes in (False, True):
        error, again = classify(reply(status, body), writes=writes)
        assert type(error) is Api
        assert (error.status, error.ambiguous, again) == (status, False, None)
        assert str(error).startswith(f"the server answered {status}")
        assert error.message == str(error)


# Messages


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (error_body(error=f"Invalid input: Entity ID 'auth-user:{CANARY}' cannot ..."), " (Invalid input)"),
        (error_body(error="Validation error: x", field=CANARY), " (Validation error)"),
        (
            error_body(error={"code": "schema_violation", "message": CANARY, "details": {"e": [CANARY]}}),
            " (schema_violation)",
        ),
        (error_body(error={"code": 7, "message": f"{CANARY} is wrong"}), ""),
        (error_body(error="response_too_large", message=CANARY), " (response_too_large)"),
        (error_body(error=CANARY), ""),
        (error_body(error=f"Ada: {CANARY}"), " (Ada)"),
        (error_body(error=f"{CANARY}: Invalid input"), ""),
        (error_body(error=None), ""),
        (error_body(error=[CANARY]), ""),
        (f"Failed to deserialize the JSON body into the target type: {CANARY}".encode(), ""),
        (f"Bad words: {CANARY}".encode(), " (Bad words)"),
        (PAGE, ""),
        (b"\xff\xfe" + CANARY.encode(), ""),
        (b"[" * 200_000, ""),
    ],
)
def test_message_repeats_only_fixed_phrases_of_the_server(body: bytes, shown: str) -> None:
    error, _ = classify(reply(422, body), writes=True)
    assert str(error) == f"the server answered 422{shown}"
