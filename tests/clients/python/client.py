"""An ACME client of certbot's library acme, as the tests drive it (tests/tests/matrix/libraries.rs says with which words)."""

import datetime
import ipaddress
import os
import pathlib
import subprocess
import sys
import threading

import josepy
from acme import challenges, client, crypto_util, errors, messages, standalone
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

PEM = serialization.Encoding.PEM


def state(name):
    return pathlib.Path(os.environ["STATE"]) / name


def private_key():
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key, text


def connect(key, account=None):
    directory = os.environ["ACME_DIRECTORY"]
    key = josepy.JWKEC(key=key)
    network = client.ClientNetwork(key, alg=josepy.ES256, account=account, user_agent="chancery-tests")
    acme = client.ClientV2(client.ClientV2.get_directory(directory, network), network)
    return acme


def stored():
    key = serialization.load_pem_private_key(state("account.pem").read_bytes(), None)
    account = messages.RegistrationResource(uri=state("account.url").read_text(), body=messages.Registration())
    return connect(key, account)


def register(eab=None):
    key, text = private_key()
    acme = connect(key)
    binding = None
    if eab:
        kid, secret = os.environ["EAB_KID"], os.environ["EAB_HMAC_KEY"]
        public = acme.net.key.public_key()
        binding = messages.ExternalAccountBinding.from_data(public, kid, secret, acme.directory)
    account = acme.new_account(
        messages.NewRegistration.from_data(
            email="someone@example.com", terms_of_service_agreed=True, external_account_binding=binding
        )
    )
    state("").mkdir(exist_ok=True)
    state("account.pem").write_bytes(text)
    state("account.url").write_text(account.uri)


def issue(method, file, *names):
    acme = stored()
    addresses = [ipaddress.ip_address(name) for name in names if name[0].isdigit()]
    domains = [name for name in names if not name[0].isdigit()]
    _, text = private_key()
    csr = crypto_util.make_csr(text, domains=domains or None, ipaddrs=addresses or None)
    order = acme.new_order(csr, profile=os.environ.get("PROFILE"))
    pending = [one for one in order.authorizations if one.body.status != messages.STATUS_VALID]
    offered = [challenge_of(one, method) for one in pending]
    withdraw = answer(acme, pending, offered)
    try:
        for challenge in offered:
            acme.answer_challenge(challenge, challenge.response(acme.net.key))
        order = acme.poll_and_finalize(order, deadline())
    finally:
        withdraw()
    pathlib.Path(file).write_text(order.fullchain_pem)


def challenge_of(authorization, method):
    for challenge in authorization.body.challenges:
        if challenge.chall.typ == method:
            return challenge
    raise errors.Error(f"{method} is not offered for {authorization.body.identifier.value}")


def deadline():
    return datetime.datetime.now() + datetime.timedelta(seconds=90)


def answer(acme, authorizations, offered):
    """Gives the challenges' proofs, and says how to take them back."""
    resources, records = set(), []
    for authorization, challenge in zip(authorizations, offered):
        response, validation = challenge.response_and_validation(acme.net.key)
        if isinstance(challenge.chall, challenges.DNS01):
            record = challenge.validation_domain_name(authorization.body.identifier.value)
            subprocess.run(["dns-add", record, validation], check=True)
            records.append(record)
        else:
            resources.add(standalone.HTTP01RequestHandler.HTTP01Resource(challenge.chall, response, validation))
    server = standalone.HTTP01Server(("127.0.0.1", int(os.environ["HTTP_PORT"])), resources)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def withdraw():
        server.shutdown()
        server.server_close()
        for record in records:
            subprocess.run(["dns-remove", record], check=True)

    return withdraw


def renew_when_due(method, file, *names):
    """By the CA's renewal information (RFC 9773); exit code 3: it is not due."""
    due, _ = stored().renewal_time(pathlib.Path(file).read_bytes())
    if due is None or due > datetime.datetime.now(datetime.timezone.utc):
        sys.exit(3)
    issue(method, file, *names)


def revoke(file):
    leaf = x509.load_pem_x509_certificate(pathlib.Path(file).read_bytes())
    stored().revoke(leaf, 4)


COMMANDS = {"register": register, "issue": issue, "renew-when-due": renew_when_due, "revoke": revoke}

if __name__ == "__main__":
    command = COMMANDS[sys.argv[1]]
    try:
        command(*sys.argv[2:])
    except (errors.Error, messages.Error, josepy.Error) as error:
        sys.exit(f"{type(error).__name__}: {error}")
