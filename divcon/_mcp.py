"""The program of a run folder as an MCP server on standard input and output, for agents of any kind."""

from __future__ import annotations

import dspy

from divcon.programs import SolvedQuestion, as_tool
from divcon.signatures import DivconError, errors_masked, masked_values


def serve_mcp(program: dspy.Module) -> None:
    """Offer `program` as the tool `divide_and_conquer` until the client disconnects.

    Standard output carries the protocol, so nothing else may write to it.

    Raises:
        DivconError: The extra `mcp` isn't installed.
    """
    try:
        from mcp.server.mcpserver import MCPServer
    except ImportError as error:
        raise DivconError("The MCP server needs the package mcp.", "Run: pip install 'divcon[mcp]'.") from error
    tool = as_tool(program)
    server = MCPServer("divcon", instructions=tool.desc)

    async def divide_and_conquer(question: str, context: str | None = None) -> SolvedQuestion:
        with errors_masked():  # the client is told of errors too
            solved: SolvedQuestion = await tool.acall(question=question, context=context)
        return SolvedQuestion.model_validate(masked_values(solved.model_dump()))

    server.tool(name=tool.name, description=tool.desc)(divide_and_conquer)
    server.run("stdio")
