"""What the clients of a round share: the agent, chance, and the moment when all is over."""

from __future__ import annotations

import threading
from pathlib import Path
from random import Random
from typing import Any

from tests.integration.agent_process import AgentProcess, Client, request

BIG_SIZE = 1024 * 1024


class Scene:
    """As one client sees it; `chance` is its own, so that a seed makes it do the same again."""

    def __init__(
        self, agent: AgentProcess, folder: Path, name: str, over: threading.Event, chance: Random
    ) -> None:
        self.agent = agent
        self.folder = folder
        self.name = name
        self.over = over
        self.chance = chance
        self.turns = 0
        self.answers = 0

    def connect(self) -> Client:
        return self.agent.connect()

    def linger(self, longest: float) -> None:
        """Do nothing for a while, up to `longest` seconds."""
        self.over.wait(self.chance.uniform(0, longest))

    def path(self) -> Path:
        """Of a file that no other client and no other turn has."""
        return self.folder / f"{self.name}-{self.turns}"

    def send_cut(self, client: Client, data: bytes) -> None:
        """Send in one to four pieces."""
        places = sorted(
            self.chance.randrange(len(data) + 1) for _ in range(self.chance.randrange(4))
        )
        ends = [0, *places, len(data)]
        client.send(*(data[start:end] for start, end in zip(ends, ends[1:])))

    def expect(self, client: Client, expected: Any) -> None:
        """The next reply is just this."""
        reply = client.reply()
        assert reply == expected, f"expected {expected}, got {str(reply)[:500]}"
        self.answers += 1

    def call(self, client: Client, execute: str, **arguments: Any) -> Any:
        """What a command returns, whose reply must carry our id and no error."""
        tag = self.chance.randrange(2**63)
        self.send_cut(client, request(execute, tag, **arguments))
        reply = client.reply()
        assert reply.keys() == {"return", "id"}, f"{execute} {arguments}: {str(reply)[:500]}"
        assert reply["id"] == tag, f"{execute}: expected the id {tag}, got {str(reply)[:500]}"
        self.answers += 1
        return reply["return"]

    def expect_ping(self, client: Client) -> None:
        client.send(request("guest-ping"))
        self.expect(client, {"return": {}})
