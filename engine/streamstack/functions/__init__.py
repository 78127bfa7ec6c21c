"""The functions of the language, one file a family. This list is the registry: a family not in it does not exist."""

from __future__ import annotations

from streamstack.functions import (
    channels,
    content,
    db,
    db_tables,
    email,
    flow,
    http,
    jobs,
    llm,
    security,
    state,
    stream,
    streams,
    values,
    webhooks,
)
from streamstack.functions.plugins import make_filter, make_run
from streamstack.language.definition import Registry

#: The families, in the order of the reference.
FAMILIES = {
    "Values": values.FUNCTIONS,
    "Flow": flow.FUNCTIONS,
    "Streaming response": stream.FUNCTIONS,
    "Streams": streams.FUNCTIONS,
    "Content": content.FUNCTIONS,
    "HTTP": http.FUNCTIONS,
    "Models": llm.FUNCTIONS,
    "Databases": (*db.FUNCTIONS, *db_tables.FUNCTIONS, *db.STREAMS),
    "State": state.FUNCTIONS,
    "Channels": channels.FUNCTIONS,
    "Jobs": jobs.FUNCTIONS,
    "Security": security.FUNCTIONS,
    "Mail and webhooks": (*email.FUNCTIONS, *webhooks.FUNCTIONS),
}

REGISTRY = Registry(
    (declared for family in FAMILIES.values() for declared in family), make_run=make_run, make_filter=make_filter
)
