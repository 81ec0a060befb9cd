package launcher

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// frontProxy is the name that the API server goes by towards the servers of
// aggregated APIs, and the only one whose word on who asks they take.
const frontProxy = "front-proxy-client"

// writePKI makes the cluster's certificate authority, the API server's serving
// certificate, the key that signs service account tokens, and what the API
// server passes requests on with to the servers of aggregated APIs. Every
// cluster gets its own, so that a client of one can never mistake another for
// it, even when a port has changed hands.
func writePKI(f files, o options) error {
	ca, err := newAuthority("testcluster")
	if err != nil {
		return err
	}
	serving, err := ca.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local",
		},
		IPAddresses: []net.IP{o.address, apiServiceIP(o)},
	})
	if err != nil {
		return err
	}
	// An authority of its own: whoever has a certificate of it is believed when
	// it says in a header who it asks for.
	proxyCA, err := newAuthority("testcluster-front-proxy")
	if err != nil {
		return err
	}
	proxy, err := proxyCA.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: frontProxy},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	// RSA, since it is what other clusters sign their tokens with (RS256).
	accountKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	for path, certificate := range map[string]pair{
		f.caCert: ca.pair, f.servingCert: serving, f.proxyCACert: proxyCA.pair, f.proxyCert: proxy,
	} {
		if err := writePEM(path, "CERTIFICATE", certificate.der); err != nil {
			return err
		}
	}
	for path, key := range map[string]crypto.Signer{
		f.caKey: ca.key, f.servingKey: serving.key, f.proxyKey: proxy.key, f.accountKey: accountKey,
	} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := writePEM(path, "PRIVATE KEY", der); err != nil {
			return err
		}
	}
	return nil
}

// pair is a certificate with its key.
type pair struct {
	der []byte
	key *ecdsa.PrivateKey
}

// authority is a pair that signs others.
type authority struct {
	pair
	certificate *x509.Certificate
}

func newAuthority(name string) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	certificate, err := x509.ParseCertificate(der)
	return authority{pair{der, key}, certificate}, err
}

// issue makes the one certificate that an authority here signs, as valid as
// the authority itself.
func (a authority) issue(template *x509.Certificate) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	template.SerialNumber = big.NewInt(2)
	template.NotBefore, template.NotAfter = a.certificate.NotBefore, a.certificate.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	return pair{der, key}, err
}

func writePEM(path, kind string, der []byte) error {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("write key material: %w", err)
	}
	return nil
}
