"""A Kafka for tests on a machine without Java: what pip carries, with what that lacks added.

``python -m tests.kafka_stand_in HOST PORT`` serves until it is killed. librdkafka (which the
confluent-kafka package carries) has a mock cluster that keeps real record batches in memory. Alone
it is of little use here: it creates no topics as a client asks for (it makes any that is asked
about), and its consumer groups take a session timeout to rebalance and fail a member that hears of
the assignment late. So a proxy stands before it, answers for topics and groups itself, and passes
on the rest.

What it cannot do, so that a test of it has to have a real Kafka:

* be killed and started again: it keeps all in memory;
* keep more of a partition than its last 5 MB or 100,000 batches, or hold to a limit, a retention
  time or a compaction that a topic is given: settings of topics are read over;
* transactions;
* ``offsets_for_times``, which finds nothing, and the time in a producer's acknowledgement, which is
  made up; the time of a record itself is right;
* a producer with ``acks=0``: it is answered, which its client does not expect;
* list or describe groups, settings and all offsets of a group at once; add partitions; delete
  records. The client says that the version of the request is unknown;
* several nodes.
"""
