"""The rules of a bucket, as a server answers them."""

from __future__ import annotations

import json
from pathlib import Path

import botocore.session
import pytest
import pytest_twisted

from resumable.remotes.s3.bucket_rules import BucketRules, LifecycleRule, read_rules
from tests.remotes.s3_rig import rig
from tests.remotes.s3_servers import ACCESS, BUCKET, SECRET, started

pytestmark = pytest.mark.slow
#: What docs/scaling.md recommends, and a rule that is too early.
DOCS = Path(__file__).parents[2] / "docs" / "scaling.md"
ABORTS = {
    "ID": "aborts",
    "Status": "Enabled",
    "Filter": {"Prefix": "up/"},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
}


@pytest_twisted.ensureDeferred
async def test_a_bucket_without_rules_and_one_with_some(tmp_path: Path) -> None:
    shown = DOCS.read_text(encoding="utf-8").split("```json\n")[1].split("```")[0]
    rules = [*json.loads(shown)["Rules"], ABORTS]
    with started("moto", tmp_path) as server:
        client = botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=server.url,
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
        )
        async with rig(server) as made:
            assert await read_rules(made.client) == BucketRules()
            client.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": rules})
            client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
            assert await read_rules(made.client) == BucketRules((LifecycleRule("up/", 3),), versioned=True)
