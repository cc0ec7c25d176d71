"""boto3, with credentials from wherever its environment says, through the end of a session. Prints what it saw as one line of JSON."""

import json
import sys
import time

import boto3
from botocore.exceptions import ClientError

bucket = sys.argv[1]
session = boto3.Session()
sts, s3 = session.client("sts"), session.client("s3")


def used():
    """Uses the clients as a program does, that knows nothing of credentials."""
    s3.list_objects_v2(Bucket=bucket, Prefix="cur/")
    return sts.get_caller_identity()["Arn"]


arn = used()
credentials = session.get_credentials()
first = credentials.get_frozen_credentials()
keys = {"aws_access_key_id": first.access_key, "aws_secret_access_key": first.secret_key, "aws_session_token": first.token}
held = boto3.client("sts", **keys)
held.get_caller_identity()
deadline = time.monotonic() + 120
while True:
    try:
        held.get_caller_identity()
    except ClientError as error:
        refused = error.response["Error"]["Code"]
        break
    assert time.monotonic() < deadline, "the session does not end"
    time.sleep(0.5)
again = used()
print(json.dumps({
    "way": credentials.method, "arn": arn, "again": again, "refused": refused,
    "first": first.access_key, "second": credentials.get_frozen_credentials().access_key,
}))
