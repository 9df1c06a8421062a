"""librdkafka's mock cluster: in C, with no Python of its own, hence by ctypes."""

import ctypes

from confluent_kafka import cimpl

_PRODUCER = 0
_NODE = 1


class MockCluster:
    """A cluster of one node, on a port of its own, until the process ends."""

    def __init__(self, advertised_host: str, advertised_port: int) -> None:
        # The extension module is linked to the library, wherever the wheel has that.
        self._library = ctypes.CDLL(cimpl.__file__)
        self._library.rd_kafka_new.restype = ctypes.c_void_p
        self._library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
        self._library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        error = ctypes.create_string_buffer(512)
        client = self._library.rd_kafka_new(_PRODUCER, None, error, ctypes.c_size_t(len(error)))
        if not client:
            raise RuntimeError(error.value.decode())
        handle = self._library.rd_kafka_mock_cluster_new(ctypes.c_void_p(client), 1)
        if not handle:
            raise RuntimeError("librdkafka makes no mock cluster")
        self._handle = ctypes.c_void_p(handle)
        self._library.rd_kafka_mock_set_controller_id(self._handle, _NODE)
        self._library.rd_kafka_mock_broker_set_host_port(
            self._handle, _NODE, advertised_host.encode(), advertised_port
        )

    def address(self) -> tuple[str, int]:
        """Where it really listens."""
        told = self._library.rd_kafka_mock_cluster_bootstraps(self._handle).decode()
        host, _, port = told.rpartition(":")
        return host, int(port)

    def create_topic(self, name: str, partitions: int) -> int:
        """Make a topic; Kafka's error code, 0 for none."""
        made = self._library.rd_kafka_mock_topic_create(self._handle, name.encode(), partitions, 1)
        return int(made)

    def delete_topic(self, name: str) -> int:
        """Remove a topic; Kafka's error code, 0 for none."""
        return int(self._library.rd_kafka_mock_topic_delete(self._handle, name.encode()))
