package launcher

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"testing"
)

func TestTheServersOfAggregatedAPIsKnowTheAPIServer(t *testing.T) {
	f := filesIn(t.TempDir())
	_, services, err := net.ParseCIDR("10.96.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(f.pki, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writePKI(f, options{address: net.IPv4(127, 0, 0, 1), serviceRange: services}); err != nil {
		t.Fatal(err)
	}
	client, err := tls.LoadX509KeyPair(f.proxyCert, f.proxyKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(client.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if certificate.Subject.CommonName != frontProxy {
		t.Errorf("its name is %s", certificate.Subject.CommonName)
	}
	forClients := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: pool(t, f.proxyCACert), KeyUsages: forClients}); err != nil {
		t.Errorf("by the authority of those who may ask for others: %v", err)
	}
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: pool(t, f.caCert), KeyUsages: forClients}); err == nil {
		t.Error("the authority of everybody signs it as well")
	}
}

func pool(t *testing.T, path string) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	return roots
}
