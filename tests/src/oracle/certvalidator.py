"""pyhanko-certvalidator in hard-fail mode: one line of JSON about the first certificate of a chain.

    certvalidator.py --root root.pem --chain chain.pem [--crl FILE]... [--ocsp FILE]... [--fetch]

With --fetch it asks for what the certificates name (OCSP first, then CRLs), else it has the files alone.
"""

import argparse
import asyncio
import json

from asn1crypto import pem, x509
from pyhanko_certvalidator import CertificateValidator
from pyhanko_certvalidator.context import ValidationContext


def certificates(path):
    with open(path, "rb") as file:
        return [x509.Certificate.load(der) for _, _, der in pem.unarmor(file.read(), multiple=True)]


def octets(paths):
    found = []
    for path in paths:
        with open(path, "rb") as file:
            found.append(file.read())
    return found


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--chain", required=True)
    parser.add_argument("--crl", action="append", default=[])
    parser.add_argument("--ocsp", action="append", default=[])
    parser.add_argument("--fetch", action="store_true")
    arguments = parser.parse_args()
    leaf, *others = certificates(arguments.chain)
    context = ValidationContext(
        trust_roots=certificates(arguments.root),
        allow_fetching=arguments.fetch,
        crls=octets(arguments.crl),
        ocsps=octets(arguments.ocsp),
        revocation_mode="hard-fail",
    )
    validator = CertificateValidator(leaf, intermediate_certs=others, validation_context=context)
    try:
        await validator.async_validate_usage({"digital_signature"}, extended_key_usage={"server_auth"})
        print(json.dumps({"valid": True}))
    except Exception as error:  # What it is, is for the test to judge.
        print(json.dumps({"valid": False, "error": type(error).__name__, "detail": str(error)}))


asyncio.run(main())
