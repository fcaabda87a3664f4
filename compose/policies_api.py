"""`GET /policies`: the catalogue of the gateway that runs, what is broken with its reason."""

from fastapi import APIRouter, Response

from controller.rest.answers import answer
from policy_engine.catalogue import Catalogue, as_document


def policies_router(catalogue: Catalogue) -> APIRouter:
    """The route, for the management API."""
    router = APIRouter(tags=["Policies"])

    @router.get("/policies", summary="The policies there are, and those that are broken")
    async def policies() -> Response:
        return answer(as_document(catalogue))

    return router
