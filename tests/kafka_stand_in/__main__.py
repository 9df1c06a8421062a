"""``python -m tests.kafka_stand_in HOST PORT``."""

import asyncio
import sys

from tests.kafka_stand_in.mock_cluster import MockCluster
from tests.kafka_stand_in.proxy import Proxy

if __name__ == "__main__":
    host, port = sys.argv[1], int(sys.argv[2])
    asyncio.run(Proxy(MockCluster(host, port)).serve(host, port))
