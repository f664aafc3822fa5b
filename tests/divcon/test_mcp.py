"""The MCP server as a client sees it: a real process, the protocol on its standard input and output."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from support.openai_server import OpenAIServer

from divcon import load_pipeline

DIVCON = Path(sys.executable).with_name("divcon")


def run_folder(folder: Path, server: OpenAIServer) -> Path:
    file = folder / "p.yaml"
    file.write_text(
        "task: {name: word-problems, train: 2, test: 1}\n"
        "roles:\n  teacher: {model: scripted/references}\n"
        f"  solver: {{model: openai/large, api_base: '{server.url}', retries: 0}}\n"
    )
    run = folder / "run"
    run.mkdir()
    (run / "pipeline.json").write_text(load_pipeline(file).model_dump_json())
    return run


@pytest.mark.model
def test_an_mcp_client_lists_and_calls_the_tool(tmp_path: Path) -> None:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    async def talk(run: Path) -> tuple:
        command = StdioServerParameters(
            command=str(DIVCON), args=["mcp", "--run", str(run)], env={**os.environ, "OPENAI_API_KEY": "k"}
        )
        async with stdio_client(command) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            tools = (await session.list_tools()).tools
            called = await session.call_tool("divide_and_conquer", {"question": "What is one and two?"})
            wrong = await session.call_tool("divide_and_conquer", {"topic": "?"})
            return tools, called, wrong

    with OpenAIServer(lambda body: "1. one\nAnswer: 3") as server:
        tools, called, wrong = asyncio.run(talk(run_folder(tmp_path, server)))
    assert [tool.name for tool in tools] == ["divide_and_conquer"]
    answer = called.structured_content
    assert answer["answer"] == "3"
    assert answer["status"] in ("decomposed", "whole", "fell_back")
    assert wrong.is_error


def test_a_folder_that_is_no_run_folder_is_an_error(tmp_path: Path) -> None:
    import subprocess

    ran = subprocess.run([str(DIVCON), "mcp", "--run", str(tmp_path)], capture_output=True, text=True, input="")
    assert ran.returncode == 1
    assert "no run folder" in ran.stderr
    assert ran.stdout == ""
