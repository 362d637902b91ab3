package api

import (
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/skip2/go-qrcode"
)

// An Invitation is how people reach the room from other machines.
type Invitation struct {
	// Bases are the addresses, such as http://192.168.1.5:7777, the best first.
	Bases []string
	// Words name the certificate that the room made for itself, Authority is its
	// signer in PEM. Both are empty where there is none.
	Words     string
	Authority []byte
}

// Link is the join link below a base. The token stands in the fragment, which
// browsers send to nobody.
func Link(base, token string) string { return base + "/j#" + url.PathEscape(token) }

// invitation is for those who hold the operator key: a room's screen.
func (s *Server) invitation(w http.ResponseWriter, _ *http.Request) {
	type link struct {
		URL string   `json:"url"`
		QR  []string `json:"qr,omitempty"` // rows of 0 and 1, without a border
	}
	links := []link{}
	for _, base := range s.o.Invitation.Bases {
		to := Link(base, s.o.JoinToken)
		links = append(links, link{to, qrRows(to)})
	}
	respond(w, map[string]any{"token": s.o.JoinToken, "words": s.o.Invitation.Words, "links": links})
}

// qrRows is the code of a text, or nil where the text is too long for one.
func qrRows(text string) []string {
	code, err := qrcode.New(text, qrcode.Medium)
	if err != nil {
		return nil
	}
	code.DisableBorder = true
	var rows []string
	for _, bits := range code.Bitmap() {
		var row strings.Builder
		for _, dark := range bits {
			row.WriteByte("01"[btoi(dark)])
		}
		rows = append(rows, row.String())
	}
	return rows
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// certificate tells by which words people know the room's own certificate.
func (s *Server) certificate(w http.ResponseWriter, _ *http.Request) {
	respond(w, map[string]string{"words": s.o.Invitation.Words})
}

// authority hands out the signer of the room's certificate, for those who would
// rather install it than click a warning away.
func (s *Server) authority(w http.ResponseWriter, _ *http.Request) {
	if len(s.o.Invitation.Authority) == 0 {
		failed(w, &apiError{Status: http.StatusNotFound, Code: "not_found", Message: "this room has no certificate of its own"})
		return
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = w.Write(s.o.Invitation.Authority)
}

// secure tells whether a browser treats the page it asked for as a secure
// context (W3C Secure Contexts, 3.1): only there it lets pages compute.
func secure(r *http.Request) bool {
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		return true
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}
