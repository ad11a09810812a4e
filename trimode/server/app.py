"""The application: routes, the guard before them, and one way for everything that a client did wrong."""

from importlib.metadata import version

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from trimode.errors import TrimodeError
from trimode.server.exchange import answered
from trimode.server.guard import Guard
from trimode.server.looking import looking, watching
from trimode.server.metrics import Metrics
from trimode.server.refusals import Refused, error_body, refused
from trimode.server.schema import describe
from trimode.server.service import Service
from trimode.server.writing import writing


def build_app(service: Service) -> FastAPI:
    """The application around a service, whose worker is not started here."""
    app = FastAPI(title="trimode", version=version("trimode"), docs_url=None, redoc_url=None)
    for router in (writing(service), looking(service), watching(service, Metrics(service))):
        app.include_router(router)
    app.add_middleware(Guard, settings=service.settings)
    app.add_exception_handler(TrimodeError, failed)
    app.add_exception_handler(HTTPException, unknown)
    describe(app)
    return app


async def failed(request: Request, error: Exception) -> Response:
    """What a user did wrong, in a sentence."""
    told = refused(error)
    return answered(error_body(told, request.url.path), told.headers, told.status)


async def unknown(request: Request, error: Exception) -> Response:
    """A path or a method that is not there."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    why = {404: f"there is no {request.url.path:.200}", 405: f"this path does not take {request.method:.20}"}
    told = Refused(status, why.get(status, "the request cannot be read"))
    return answered(error_body(told, request.url.path), dict(error.headers or {}), status)
