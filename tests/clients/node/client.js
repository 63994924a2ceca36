// An ACME client of acme-client, as the tests drive it (tests/tests/matrix/libraries.rs says with which words).
'use strict';

const { execFileSync } = require('child_process');
const fs = require('fs');
const http = require('http');
const net = require('net');
const path = require('path');
const tls = require('tls');
// Installed elsewhere: NODE_PATH says where.
const acme = require('acme-client');

const directoryUrl = process.env.ACME_DIRECTORY;
const state = (name) => path.join(process.env.STATE, name);
const read = (name) => fs.readFileSync(state(name));

function connect(accountKey, externalAccountBinding) {
    const client = new acme.Client({ directoryUrl, accountKey, externalAccountBinding, backoffMin: 500 });
    return client;
}

// The account of a stored key: asking for it registers nothing that is not there.
async function stored(name) {
    const client = connect(read(name));
    await client.createAccount({ onlyReturnExisting: true });
    return client;
}

const commands = {
    async register(eab) {
        const key = await acme.crypto.createPrivateEcdsaKey();
        const binding = eab && { kid: process.env.EAB_KID, hmacKey: process.env.EAB_HMAC_KEY };
        await connect(key, binding).createAccount({
            termsOfServiceAgreed: true,
            contact: ['mailto:someone@example.com'],
        });
        fs.mkdirSync(process.env.STATE, { recursive: true });
        fs.writeFileSync(state('account.pem'), key);
    },

    async issue(method, file, ...names) {
        const client = await stored('account.pem');
        const identifiers = names.map((value) => ({ type: net.isIP(value) ? 'ip' : 'dns', value }));
        const profile = process.env.PROFILE;
        const order = await client.createOrder({ identifiers, ...(profile && { profile }) });
        for (const authz of await client.getAuthorizations(order)) {
            if (authz.status !== 'valid') {
                await prove(client, authz, method);
            }
        }
        const [, csr] = await acme.crypto.createCsr(
            { commonName: net.isIP(names[0]) ? undefined : names[0], altNames: names },
            await acme.crypto.createPrivateEcdsaKey(),
        );
        const finalized = await client.finalizeOrder(order, csr);
        fs.writeFileSync(file, await client.getCertificate(finalized));
    },

    async revoke(file) {
        const client = await stored('account.pem');
        await client.revokeCertificate(fs.readFileSync(file), { reason: 4 });
    },

    async 'key-change'() {
        const client = await stored('account.pem');
        const key = await acme.crypto.createPrivateEcdsaKey('P-384');
        await client.updateAccountKey(key);
        fs.renameSync(state('account.pem'), state('former.pem'));
        fs.writeFileSync(state('account.pem'), key);
    },

    async 'former-key'() {
        await stored('former.pem');
    },
};

async function prove(client, authz, method) {
    const challenge = authz.challenges.find((one) => one.type === method);
    if (!challenge) {
        throw new Error(`${method} is not offered for ${authz.identifier.value}`);
    }
    const proof = await client.getChallengeKeyAuthorization(challenge);
    const withdraw = await answer(authz, challenge, proof);
    try {
        await client.completeChallenge(challenge);
        await client.waitForValidStatus(challenge);
    }
    finally {
        withdraw();
    }
}

// Gives the challenge's proof, and says how to take it back.
async function answer(authz, challenge, proof) {
    const name = authz.identifier.value;
    if (challenge.type === 'dns-01') {
        const record = `_acme-challenge.${name}`;
        execFileSync('dns-add', [record, proof]);
        return () => execFileSync('dns-remove', [record]);
    }
    let server;
    if (challenge.type === 'http-01') {
        server = http.createServer((request, response) => {
            const found = request.url === `/.well-known/acme-challenge/${challenge.token}`;
            response.writeHead(found ? 200 : 404).end(found ? proof : '');
        });
        server.listen(Number(process.env.HTTP_PORT), '127.0.0.1');
    }
    else {
        const [key, cert] = await acme.crypto.createAlpnCertificate(authz, proof);
        server = tls.createServer({ key, cert, ALPNProtocols: ['acme-tls/1'] }, (socket) => socket.end());
        server.listen(Number(process.env.TLS_PORT), '127.0.0.1');
    }
    await new Promise((resolve, reject) => {
        server.once('listening', resolve).once('error', reject);
    });
    return () => {
        server.close();
        server.closeAllConnections?.();
    };
}

const [command, ...words] = process.argv.slice(2);
commands[command](...words).then(
    () => process.exit(0),
    (error) => {
        console.error(error.message);
        process.exit(1);
    },
);
