"""Our own services inside moto: requests parsed and answers written by AWS's service models."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from botocore import xform_name
from botocore.model import OperationNotFoundError
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse


class Refusal(ServiceException):
    """An API call that is refused.

    Args:
        code: AWS's error code.
        message: What was wrong, in one sentence.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)


class Responder(BaseResponse):
    """Passes each action to the handler's method of the same name, in snake case."""

    service: ClassVar[str]
    handler: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__(service_name=self.service)
        self.automated_parameter_parsing = True

    def _dispatch(self, request: Any, full_url: str | None = None, headers: Any = None) -> Any:
        try:
            self.setup_class(request, full_url, headers)
        except OperationNotFoundError:
            return self._serialized(Refusal("InvalidAction", "There is no such action."))
        return self.call_action()

    def call_action(self) -> Any:
        """Answer the parsed request."""
        action = self._get_action()
        method = getattr(self.handler, xform_name(action), None)
        result: object
        try:
            if method is None:
                raise Refusal("InvalidAction", f"{action} is not supported by the local cloud.")
            result = method(self.params)
        except ServiceException as error:
            result = error
        return self._serialized(result)

    def _serialized(self, result: object) -> Any:
        with warnings.catch_warnings():
            # Codes such as ValidationError are AWS's, but in no service model.
            warnings.simplefilter("ignore")
            return self.serialized(ActionResult(result))


def responder(service: str, handler: object) -> type[Responder]:
    """A moto response class for one service.

    Args:
        service: boto3's name of the service.
        handler: Has one method per action, in snake case, which takes the parameters and returns the answer,
            both as boto3 has them, or raises :class:`Refusal`.

    Returns:
        The class, to be put into moto's URL table.
    """
    return type(f"{service}Response", (Responder,), {"service": service, "handler": handler})
