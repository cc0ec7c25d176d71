"""Asks rolebridge for AWS credentials, with nats-py and PyNaCl and nothing else; docs/credentials.md has the contract.

    python credentials.py nats://127.0.0.1:4222 USER SEED_FILE BROKER_KEY[,BROKER_KEY] TENANT CONNECTION
"""

import asyncio
import base64
import binascii
import json
import sys

import nats
from nacl.public import Box, PrivateKey, PublicKey
from nacl.signing import SigningKey

USER, XKEY = 20 << 3, 23 << 3  # the first byte of a public nkey: U..., X...


def encode(prefix, key):
    """A public key as text: base 32 of prefix, key and CRC-16 (XMODEM, little-endian), without padding."""
    raw = bytes([prefix]) + key
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def decode(text):
    """The bytes of an nkey before its checksum: a prefix of one byte (public) or two (seed), and the key."""
    raw = base64.b32decode(text + "=" * (-len(text) % 8))
    if binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") != raw[-2:]:
        raise SystemExit("a key has a wrong checksum: it was not copied whole")
    return raw[:-2]


async def connect(url, user, seed_file):
    """As the NATS user `user`, who hears its own inbox alone."""
    with open(seed_file) as file:
        seed = next(line.strip() for line in file if line.startswith("SU"))
    key = SigningKey(decode(seed)[2:])
    bus = nats.NATS()
    # With the package nkeys, `nkeys_seed=seed_file` does this and the signature.
    bus._public_nkey = encode(USER, bytes(key.verify_key))
    sign = lambda nonce: base64.b64encode(key.sign(nonce.encode()).signature)
    await bus.connect(url, signature_cb=sign, inbox_prefix=f"_INBOX_{user}", allow_reconnect=False, connect_timeout=5)
    return bus


def opened(answer, mine, pinned, asked):
    """What is in the box, if a pinned broker has sealed it, and for this very question."""
    if answer["broker_key"] not in pinned:
        raise SystemExit(f"the answer was sealed by {answer['broker_key']}, which is not pinned: refused")
    sealed = base64.urlsafe_b64decode(answer["sealed"] + "=" * (-len(answer["sealed"]) % 4))
    if sealed[:4] != b"xkv1":
        raise SystemExit("the box is not of the form xkv1: refused")
    broker = PublicKey(decode(answer["broker_key"])[1:])
    inside = json.loads(Box(mine, broker).decrypt(sealed[28:], nonce=sealed[4:28]))
    if (inside["purpose"], inside["tenant"], inside["connection"]) != asked:
        raise SystemExit("the box holds the answer to another question: refused")
    # What stands beside the box is not sealed. Brokers of before these stood in it left them out.
    if any(inside.get(name, answer[name]) != answer[name] for name in ("account", "role_arn", "region", "expires_at")):
        raise SystemExit("what stands beside the box is not what stands in it: refused")
    return inside


async def main(url, user, seed_file, broker_keys, tenant, connection):
    asked = ("cost-read", tenant, connection)
    mine = PrivateKey.generate()  # the answer is sealed to it: it need not outlive the question
    question = {"requester_key": encode(XKEY, bytes(mine.public_key)), "requester": "python-example"}
    bus = await connect(url, user, seed_file)
    try:
        subject = "rolebridge.rpc.v1.credentials.issue." + ".".join(asked)
        reply = await bus.request(subject, json.dumps(question).encode(), timeout=15)
    finally:
        await bus.close()
    if reason := (reply.headers or {}).get("Nats-Service-Error"):
        raise SystemExit(f"{reply.headers.get('Rolebridge-Error')}: {reason}")
    answer = json.loads(reply.data)
    credentials = opened(answer, mine, broker_keys.split(","), asked)
    # access_key_id, secret_access_key, session_token: for boto3.Session(aws_access_key_id=..., ...).
    print(f"account {answer['account']}: {credentials['access_key_id']} until {credentials['expires_at']}")


if __name__ == "__main__":
    if len(sys.argv) != 7:
        raise SystemExit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
