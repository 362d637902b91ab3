package lan

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Lifetimes. Apple's systems refuse leaves of more than 825 days even of
// authorities that a user trusts.
const (
	authorityYears = 10
	leafDays       = 397
	renewDays      = 14
)

// Files of an identity, each a certificate and its key.
const (
	authorityFile = "authority.pem"
	leafFile      = "certificate.pem"
)

// An Identity is what this installation proves itself with.
type Identity struct {
	Config    *tls.Config
	Authority []byte // its certificate in PEM, for those who install it
	Words     string // the authority's key as words, to compare by eye
}

// Load reads the identity kept in a folder, or makes one. The certificate is
// kept as long as it fits names and addresses: browsers remember for which one
// their user accepted the warning.
func Load(folder string, names []string, addresses []net.IP, now time.Time) (*Identity, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	authority, err := loadPair(filepath.Join(folder, authorityFile))
	if err != nil || now.After(authority.cert.NotAfter.AddDate(-1, 0, 0)) {
		if authority, err = newAuthority(now); err != nil {
			return nil, err
		}
		if err := authority.save(filepath.Join(folder, authorityFile)); err != nil {
			return nil, err
		}
	}
	leaf, err := loadPair(filepath.Join(folder, leafFile))
	if err != nil || !leaf.fits(authority, names, addresses, now) {
		if leaf, err = newLeaf(authority, names, addresses, now); err != nil {
			return nil, err
		}
		if err := leaf.save(filepath.Join(folder, leafFile)); err != nil {
			return nil, err
		}
	}
	return &Identity{
		Config: &tls.Config{
			MinVersion:   tls.VersionTLS12,
			NextProtos:   []string{"http/1.1"}, // WebSockets need it
			Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.cert.Raw, authority.cert.Raw}, PrivateKey: leaf.key, Leaf: leaf.cert}},
		},
		Authority: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.cert.Raw}),
		Words:     wordsOf(&authority.key.PublicKey),
	}, nil
}

// a pair is a certificate and its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func loadPair(path string) (*pair, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &pair{}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE":
			p.cert, err = x509.ParseCertificate(block.Bytes)
		case "PRIVATE KEY":
			var key any
			if key, err = x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				p.key, _ = key.(*ecdsa.PrivateKey)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if p.cert == nil || p.key == nil || !p.key.PublicKey.Equal(p.cert.PublicKey) {
		return nil, fmt.Errorf("%s holds no certificate with its key", path)
	}
	return p, nil
}

// save writes a pair at once or not at all: a broken file would be a new
// identity, and a warning for everyone.
func (p *pair) save(path string) error {
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	err = errors.Join(pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}), pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	if err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, b.Bytes(), 0o600); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(temporary)))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// newKey makes a key and the serial number of the certificate for it.
func newKey() (*ecdsa.PrivateKey, *big.Int, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return key, serial, err
}

func newAuthority(now time.Time) (*pair, error) {
	key, serial, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"Potluck"}, CommonName: "Potluck " + wordsOf(&key.PublicKey)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(authorityYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return sign(template, template, key, key)
}

func newLeaf(authority *pair, names []string, addresses []net.IP, now time.Time) (*pair, error) {
	key, serial, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: authority.cert.Subject,
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, leafDays),
		DNSNames: names, IPAddresses: addresses,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	template.Subject.CommonName += ", this room"
	return sign(template, authority.cert, key, authority.key)
}

func sign(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) (*pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &pair{cert, key}, err
}

// fits tells whether a leaf still serves: of this authority, not about to
// expire, for all names and addresses.
func (p *pair) fits(authority *pair, names []string, addresses []net.IP, now time.Time) bool {
	if p.cert.CheckSignatureFrom(authority.cert) != nil || now.Before(p.cert.NotBefore) || now.AddDate(0, 0, renewDays).After(p.cert.NotAfter) {
		return false
	}
	for _, n := range names {
		if p.cert.VerifyHostname(n) != nil {
			return false
		}
	}
	for _, a := range addresses {
		if p.cert.VerifyHostname(a.String()) != nil {
			return false
		}
	}
	return true
}

// wordsOf writes 48 bits of a key's hash as three words that can be said aloud:
// proquints, five letters for each 16 bits (arXiv:0901.4016).
func wordsOf(key *ecdsa.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "" // not for a P-256 key
	}
	sum := sha256.Sum256(der)
	var words []string
	for i := range 3 {
		words = append(words, proquint(uint16(sum[2*i])<<8|uint16(sum[2*i+1])))
	}
	return strings.Join(words, " ")
}

func proquint(n uint16) string {
	const consonants, vowels = "bdfghjklmnprstvz", "aiou"
	return string([]byte{consonants[n>>12], vowels[n>>10&3], consonants[n>>6&15], vowels[n>>4&3], consonants[n&15]})
}
