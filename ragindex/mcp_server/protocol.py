"""The server of the Model Context Protocol over a `Library`; with `http` and `stdio` all that knows the package mcp.

The low-level server of that package is used, and not its MCPServer: that one configures logging for the whole process,
and puts a prefix and lists of validation errors into what should be one sentence.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.to_thread
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

import ragindex
from ragindex.mcp_server.answers import Library
from ragindex.mcp_server.limits import RUNNING
from ragindex.mcp_server.tools import INSTRUCTIONS, TOOLS, CallError, Tool, call

__all__ = ["create_server"]

_Context = ServerRequestContext[anyio.CapacityLimiter]


def create_server(library: Library) -> Server[anyio.CapacityLimiter]:
    """A server with the tools of `ragindex.mcp_server.tools`; which transport it speaks over is the caller's choice."""

    async def list_tools(_: _Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_described(tool) for tool in TOOLS.values()])

    async def call_tool(context: _Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        work = partial(call, library, params.name, params.arguments or {})
        try:
            answer = await anyio.to_thread.run_sync(work, limiter=context.lifespan_context)
        except CallError as error:
            return types.CallToolResult(content=[types.TextContent(text=str(error))], is_error=True)
        text = json.dumps(answer, ensure_ascii=False, allow_nan=False)
        return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=answer)

    server = Server(
        "ragindex",
        version=ragindex.__version__,
        title="ragindex",
        instructions=INSTRUCTIONS,
        lifespan=_running,
        get_tool_input_schema=lambda name: TOOLS[name].takes if name in TOOLS else None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    server.middleware.clear()  # it holds tracing, which would report if the process had an exporter
    return server


@asynccontextmanager
async def _running(_: Server[anyio.CapacityLimiter]) -> AsyncIterator[anyio.CapacityLimiter]:
    """What bounds the calls that are worked on at a time, for as long as the server runs."""
    yield anyio.CapacityLimiter(RUNNING)


def _described(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=dict(tool.takes),
        output_schema=dict(tool.gives),
        annotations=types.ToolAnnotations(
            title=tool.title, read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    )
