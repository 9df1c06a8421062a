"""The ControlBus: what happened in the hub, as CloudEvents, told at least once and in order.

`events` is their form, pure. `relay` brings them from the outbox (`riskhub.store.events`) to Kafka,
`bus` is where consumers take them from, `worker` the loop that lives on them.
"""
