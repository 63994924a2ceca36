// An ACME client of x/crypto/acme, as the tests drive it (tests/tests/matrix/libraries.rs says with which words).
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/acme"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, command string, words []string) error {
	switch command {
	case "register":
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		account := &acme.Account{Contact: []string{"mailto:someone@example.com"}}
		if len(words) > 0 && words[0] == "eab" {
			account.ExternalAccountBinding, err = binding()
			if err != nil {
				return err
			}
		}
		client, err := connect(key)
		if err != nil {
			return err
		}
		if _, err := client.Register(ctx, account, acme.AcceptTOS); err != nil {
			return err
		}
		return save(key, state("account.pem"))
	case "issue":
		return issue(ctx, words[0], words[1], words[2:])
	case "revoke":
		client, err := stored("account.pem")
		if err != nil {
			return err
		}
		leaf, err := first(words[0])
		if err != nil {
			return err
		}
		return client.RevokeCert(ctx, nil, leaf, acme.CRLReasonSuperseded)
	case "key-change":
		client, err := stored("account.pem")
		if err != nil {
			return err
		}
		old := client.Key
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			return err
		}
		if err := client.AccountKeyRollover(ctx, key); err != nil {
			return err
		}
		if err := save(old.(*ecdsa.PrivateKey), state("former.pem")); err != nil {
			return err
		}
		return save(key, state("account.pem"))
	case "former-key":
		client, err := stored("former.pem")
		if err != nil {
			return err
		}
		_, err = client.GetReg(ctx, "")
		return err
	}
	return fmt.Errorf("unknown command %q", command)
}

func connect(key crypto.Signer) (*acme.Client, error) {
	directory := os.Getenv("ACME_DIRECTORY")
	root, err := os.ReadFile(os.Getenv("CA_ROOT"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		return nil, errors.New("no root")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	client := &acme.Client{Key: key, DirectoryURL: directory, HTTPClient: &http.Client{Transport: transport}}
	return client, nil
}

func binding() (*acme.ExternalAccountBinding, error) {
	key, err := decode(os.Getenv("EAB_HMAC_KEY"))
	return &acme.ExternalAccountBinding{KID: os.Getenv("EAB_KID"), Key: key}, err
}

func issue(ctx context.Context, method, file string, names []string) error {
	client, err := stored("account.pem")
	if err != nil {
		return err
	}
	var ids []acme.AuthzID
	template := &x509.CertificateRequest{}
	for _, name := range names {
		if address := net.ParseIP(name); address != nil {
			ids = append(ids, acme.IPIDs(name)...)
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			ids = append(ids, acme.DomainIDs(name)...)
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	var options []acme.OrderOption
	if profile := os.Getenv("PROFILE"); profile != "" {
		options = append(options, acme.WithOrderIssuanceProfile(acme.ProfileName(profile)))
	}
	order, err := client.AuthorizeOrder(ctx, ids, options...)
	if err != nil {
		return err
	}
	for _, url := range order.AuthzURLs {
		if err := prove(ctx, client, url, method); err != nil {
			return err
		}
	}
	if order, err = client.WaitOrder(ctx, order.URI); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return err
	}
	chain, _, err := client.CreateCertFromOrder(ctx, order, csr, true)
	if err != nil {
		return err
	}
	var text []byte
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return os.WriteFile(file, text, 0o644)
}

func prove(ctx context.Context, client *acme.Client, url, method string) error {
	authorization, err := client.GetAuthorization(ctx, url)
	if err != nil || authorization.Status == acme.StatusValid {
		return err
	}
	var challenge *acme.Challenge
	for _, one := range authorization.Challenges {
		if one.Type == method {
			challenge = one
		}
	}
	if challenge == nil {
		return fmt.Errorf("%s is not offered for %s", method, authorization.Identifier.Value)
	}
	withdraw, err := answer(client, challenge, authorization.Identifier.Value)
	if err != nil {
		return err
	}
	defer withdraw()
	if _, err := client.Accept(ctx, challenge); err != nil {
		return err
	}
	_, err = client.WaitAuthorization(ctx, url)
	return err
}

// answer gives the challenge's proof, and says how to take it back.
func answer(client *acme.Client, challenge *acme.Challenge, name string) (func(), error) {
	switch challenge.Type {
	case "http-01":
		body, err := client.HTTP01ChallengeResponse(challenge.Token)
		if err != nil {
			return nil, err
		}
		listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("HTTP_PORT"))
		if err != nil {
			return nil, err
		}
		path := client.HTTP01ChallengePath(challenge.Token)
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != path {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write([]byte(body))
		})}
		go func() { _ = server.Serve(listener) }()
		return func() { _ = server.Close() }, nil
	case "dns-01":
		value, err := client.DNS01ChallengeRecord(challenge.Token)
		if err != nil {
			return nil, err
		}
		record := "_acme-challenge." + name
		if err := exec.Command("dns-add", record, value).Run(); err != nil {
			return nil, err
		}
		return func() { _ = exec.Command("dns-remove", record).Run() }, nil
	case "tls-alpn-01":
		certificate, err := client.TLSALPN01ChallengeCert(challenge.Token, name)
		if err != nil {
			return nil, err
		}
		config := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{acme.ALPNProto}}
		listener, err := tls.Listen("tcp", "127.0.0.1:"+os.Getenv("TLS_PORT"), config)
		if err != nil {
			return nil, err
		}
		go func() {
			for {
				connection, err := listener.Accept()
				if err != nil {
					return
				}
				_ = connection.(*tls.Conn).Handshake()
				_ = connection.Close()
			}
		}()
		return func() { _ = listener.Close() }, nil
	}
	return nil, fmt.Errorf("no way to answer %s", challenge.Type)
}

func state(name string) string {
	return filepath.Join(os.Getenv("STATE"), name)
}

func stored(name string) (*acme.Client, error) {
	der, err := first(state(name))
	if err != nil {
		return nil, err
	}
	key, err := x509.ParseECPrivateKey(der)
	if err != nil {
		return nil, err
	}
	return connect(key)
}

func save(key *ecdsa.PrivateKey, file string) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func first(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is no PEM", file)
	}
	return block.Bytes, nil
}

func decode(text string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
}
