"""Definitions of a given shape whose assets do nothing: what is left of a run is Dagster's own.

Loaded by a code server of its own; the shape is what `shape_of` wrote, in RISKHUB_BENCH_SHAPE.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
from dagster_shared.serdes import deserialize_value, serialize_value

from riskhub_dagster.metadata import attach

SHAPE = "RISKHUB_BENCH_SHAPE"


def shape_of(instance: dg.DagsterInstance, assets: Sequence[str], partition: str) -> str:
    """Of our definitions: these assets, with the metadata that a partition of each was given."""
    from riskhub_dagster.definitions import defs  # noqa: PLC0415 - not where the shape is loaded

    wanted = {dg.AssetKey(asset) for asset in assets}
    graph = defs.resolve_asset_graph()
    steps = []
    for definition in graph.assets_defs:
        if not definition.keys & wanted:
            continue
        partitions = definition.partitions_def
        assert isinstance(partitions, dg.DailyPartitionsDefinition)
        steps.append(
            {
                "first": partitions.start.date().isoformat(),
                "assets": {
                    spec.key.to_user_string(): {
                        "deps": [dep.asset_key.to_user_string() for dep in spec.deps],
                        "metadata": serialize_value(_metadata(instance, spec.key, partition)),
                    }
                    for spec in definition.specs
                },
                "checks": [
                    (spec.asset_key.to_user_string(), spec.name) for spec in definition.check_specs
                ],
            }
        )
    return json.dumps(steps)


def _metadata(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str
) -> Mapping[str, Any]:
    stored = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[partition])
    [record] = instance.fetch_materializations(stored, limit=1).records
    assert record.asset_materialization is not None
    return record.asset_materialization.metadata


def _step(shape: Mapping[str, Any]) -> dg.AssetsDefinition:
    metadata = {
        asset: deserialize_value(of_asset["metadata"], dict)
        for asset, of_asset in shape["assets"].items()
    }

    @dg.multi_asset(
        name="_".join(shape["assets"]),
        specs=[
            dg.AssetSpec(asset, deps=of_asset["deps"], skippable=True)
            for asset, of_asset in shape["assets"].items()
        ],
        check_specs=[dg.AssetCheckSpec(name, asset=asset) for asset, name in shape["checks"]],
        partitions_def=dg.DailyPartitionsDefinition(shape["first"], end_offset=1),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def step(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        days = [date.fromisoformat(key) for key in context.partition_keys]
        for asset, of_asset in metadata.items():
            attach(context, dict.fromkeys(days, of_asset), asset)
        for asset, name in shape["checks"]:
            yield dg.AssetCheckResult(asset_key=asset, check_name=name, passed=True)
        for asset in metadata:
            yield dg.MaterializeResult(asset)

    return step


if SHAPE in os.environ:
    defs = dg.Definitions(
        assets=[_step(shape) for shape in json.loads(os.environ[SHAPE])],
        executor=dg.in_process_executor,
    )
