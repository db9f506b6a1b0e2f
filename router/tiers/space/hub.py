"""A client of the Hugging Face Hub's API: the only module that imports huggingface_hub. Calls block, with a limit.

The endpoint is huggingface.co, or HF_ENDPOINT. The token is the one that is passed in: one that somebody saved on this
machine is never used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, cast

import huggingface_hub
from huggingface_hub import SpaceHardware
from huggingface_hub.errors import HfHubHTTPError

from router.core.retry import retried

HUB_TIMEOUT_S = 5.0
PUBLISH_TIMEOUT_S = 120.0
"""For what a person starts and waits for: files to upload, hardware to allot."""
_TRIES = 3
"""Tries of a call that fails for a passing reason: within a second, since callers go on without a Hub that is out."""


class HubError(Exception):
    """A call of the Hub failed: a phrase written here, and the HTTP `status` where it answered at all.

    `is_transient`: the connection broke or the Hub has a fault, so that another try may succeed.
    """

    def __init__(self, sentence: str, status: int | None = None, *, is_transient: bool = False) -> None:
        super().__init__(sentence)
        self.status = status
        self.is_transient = is_transient


def _is_transient(error: Exception) -> bool:
    return isinstance(error, HubError) and error.is_transient


# For calls that change nothing or set what they name; a restart or an upload that arrived twice would happen twice.
_repeatable = retried(_is_transient, tries=_TRIES)


class SpaceRuntime(NamedTuple):
    """A Space's stage and hardware, by the Hub's own strings."""

    stage: str
    hardware: str | None


class GpuAllowance(NamedTuple):
    """What is left of the ZeroGPU quota of the token's owner, in seconds of a GPU, and when the next period begins."""

    left_s: float
    resets_in_s: float | None


class Hub:
    """The calls that the router and `router deploy` make."""

    def __init__(self, token: str | None) -> None:
        self.api = huggingface_hub.HfApi(token=token or False)

    @_repeatable
    def runtime(self, space: str) -> SpaceRuntime:
        """Raises HubError."""
        with translate_hub_errors():
            found = self.api.get_space_runtime(space)
        return SpaceRuntime(str(getattr(found.stage, "value", found.stage)), found.hardware and str(found.hardware))

    @_repeatable
    def host(self, space: str) -> str:
        """The URL at which the Space answers. Raises HubError."""
        with translate_hub_errors():
            found = self.api.space_info(space, timeout=HUB_TIMEOUT_S).host
        if not found:
            raise HubError("the Hub does not say where the Space answers")
        return found

    @_repeatable
    def allowance(self) -> GpuAllowance:
        """Raises HubError."""
        with translate_hub_errors():
            found = self.api.get_zero_gpu_quota()
        resets_in_s = None if found.resets_at is None else (found.resets_at - datetime.now(UTC)).total_seconds()
        return GpuAllowance(float(found.remaining), resets_in_s)

    def restart(self, space: str) -> None:
        """Raises HubError."""
        with translate_hub_errors():
            self.api.restart_space(space)

    @_repeatable
    def whoami(self) -> str:
        """The name of the token's owner. Raises HubError."""
        with translate_hub_errors():
            return str(self.api.whoami()["name"])

    @_repeatable
    def create_space(self, space: str, sdk: str, *, private: bool) -> None:
        """Create the Space unless it exists. Raises HubError."""
        with translate_hub_errors(PUBLISH_TIMEOUT_S):
            self.api.create_repo(space, repo_type="space", space_sdk=sdk, private=private, exist_ok=True)

    @_repeatable
    def set_private(self, space: str, *, private: bool) -> None:
        """Raises HubError."""
        with translate_hub_errors(PUBLISH_TIMEOUT_S):
            self.api.update_repo_settings(space, repo_type="space", private=private)

    @_repeatable
    def set_secret(self, space: str, name: str, value: str) -> None:
        """Raises HubError."""
        with translate_hub_errors(PUBLISH_TIMEOUT_S):
            self.api.add_space_secret(space, name, value)

    @_repeatable
    def set_variable(self, space: str, name: str, value: str) -> None:
        """Raises HubError."""
        with translate_hub_errors(PUBLISH_TIMEOUT_S):
            self.api.add_space_variable(space, name, value)

    @_repeatable
    def request_hardware(self, space: str, hardware: str) -> None:
        """Raises HubError."""
        with translate_hub_errors(PUBLISH_TIMEOUT_S):
            self.api.request_space_hardware(space, cast("SpaceHardware", hardware))

    @_repeatable
    def set_sleep(self, space: str, seconds: int) -> None:
        """Raises HubError."""
        with translate_hub_errors(PUBLISH_TIMEOUT_S):
            self.api.set_space_sleep_time(space, seconds)

    def upload(self, space: str, folder: Path, message: str) -> None:
        """Replace the Space's files by those of `folder`, in one commit. Raises HubError."""
        with translate_hub_errors(PUBLISH_TIMEOUT_S):
            self.api.upload_folder(
                repo_id=space, repo_type="space", folder_path=folder, commit_message=message, delete_patterns=["*"]
            )


def saved_token() -> str | None:
    """The token that this machine's user has saved with `hf auth login`."""
    return huggingface_hub.get_token()


@contextmanager
def translate_hub_errors(timeout_s: float = HUB_TIMEOUT_S) -> Iterator[None]:
    """Limit the calls inside to `timeout_s`, and raise HubError for whatever goes wrong with them."""
    huggingface_hub.get_session().timeout = timeout_s  # its own default is no limit
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        raise HubError(_hub_sentence(status), status, is_transient=(status or 0) >= 500) from None
    except (ConnectionError, TimeoutError):
        raise HubError("the Hub can't be reached", is_transient=True) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HubError(f"the Hub can't be asked ({type(error).__name__})") from None
    except Exception as error:
        # The errors of its HTTP client have no base class in common with the above.
        if type(error).__module__.startswith("httpx"):
            raise HubError("the Hub can't be reached", is_transient=True) from None
        raise


def _hub_sentence(status: int | None) -> str:
    match status:
        case 401:
            return "the Hub does not accept the token"
        case 403:
            return "the token may not do this"
        case 404:
            return "the Hub knows no such Space, or the token may not see it"
        case 402:
            return "the Hub wants a paid plan for this"
    return f"the Hub answered with status {status}"
