"""Credentials of the environment, and requests signed with them."""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from awscrt.auth import (
    AwsCredentialsProvider,
    AwsSignatureType,
    AwsSignedBodyHeaderType,
    AwsSigningAlgorithm,
    AwsSigningConfig,
    aws_sign_request,
)
from awscrt.exceptions import AwsCrtError
from awscrt.http import HttpHeaders, HttpRequest

from moe_operator.weights.errors import TransientError

_WAIT = 30.0  # seconds: a web identity is exchanged at STS
#: Each says that credentials were meant to be there: then asking as anybody would only hide why they are not.
_MEANT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_PROFILE",
)


class Signer:
    """Signs with what the default chain finds; without credentials it asks as anybody."""

    def __init__(self) -> None:
        self._provider: Any = AwsCredentialsProvider.new_default_chain()
        self.identity = ""

    def _find(self) -> None:
        """Raises TransientError where credentials were meant to be and are not, for example while STS is away."""
        try:
            found = self._provider.get_credentials().result(_WAIT)
        except (AwsCrtError, TimeoutError) as error:
            if meant := [name for name in _MEANT if os.environ.get(name)]:
                raise TransientError(f"no credentials from {', '.join(meant)}: {error}") from error
            self._provider, self.identity = None, "without credentials"
        else:
            self.identity = f"as {found.access_key_id}"

    def signed(self, method: str, url: str, headers: Mapping[str, str], region: str) -> dict[str, str]:
        """The headers to send: the given ones, and a signature over them and the address (SigV4)."""
        if not self.identity:
            self._find()
        if self._provider is None:
            return dict(headers)
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = HttpRequest(method, path, HttpHeaders([("Host", parts.netloc), *headers.items()]))
        config = AwsSigningConfig(
            algorithm=AwsSigningAlgorithm.V4,
            signature_type=AwsSignatureType.HTTP_REQUEST_HEADERS,
            credentials_provider=self._provider,
            region=region,
            service="s3",
            # S3 signs keys as they are sent.
            use_double_uri_encode=False,
            should_normalize_uri_path=False,
            signed_body_value="UNSIGNED-PAYLOAD",
            signed_body_header_type=AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
        )
        return dict(aws_sign_request(request, config).result(_WAIT).headers)
