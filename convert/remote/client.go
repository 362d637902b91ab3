package remote

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxRedirects = 10
	// connections is how many requests run at once: enough to fill a fast
	// line over the latency of a far host, few enough to be a polite guest.
	connections = 8
	// A request is repeated until tries in a row brought nothing, or most times; waits double
	// from firstWait to maxWait, about five minutes together. A host that asks for
	// more patience than maxRetryAfter is believed, and left.
	tries, most   = 10, 200
	firstWait     = 500 * time.Millisecond
	maxWait       = time.Minute
	maxRetryAfter = 10 * time.Minute
	// idle is how long a body may bring nothing.
	idle = time.Minute
)

// A client makes requests: follows redirects, repeats, limits.
type client struct {
	http  *http.Client
	hub   *hub // nil: a plain host
	slots chan struct{}
	sleep func(ctx context.Context, d time.Duration) error
}

// hub is what is known of a Hugging Face host.
type hub struct {
	endpoint *url.URL
	token    string
	repo     string
}

func newClient(h *http.Client) *client {
	if h == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = connections
		t.ResponseHeaderTimeout = idle
		// One connection each: over HTTP/2 all would share one, and its window.
		t.ForceAttemptHTTP2, t.Protocols = false, new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		h = &http.Client{Transport: t}
	}
	own := *h
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client{http: &own, slots: make(chan struct{}, connections), sleep: sleep}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// isLocal tells whether a URL leads to this machine.
func isLocal(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// An answer is what a request came to after all redirects.
type answer struct {
	*http.Response
	url    *url.URL
	linked string // the host's own name of the content (X-Linked-ETag), from any of the redirects
}

// request makes one request, following redirects: the standard client would
// take the token along to other ports and to subdomains.
func (c *client) request(ctx context.Context, u *url.URL, ranged string) (*answer, error) {
	linked := ""
	for range maxRedirects {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("User-Agent", "potluck")
		r.Header.Set("Accept-Encoding", "identity") // ranges count the file's own bytes
		if ranged != "" {
			r.Header.Set("Range", ranged)
		}
		if h := c.hub; h != nil && h.token != "" && u.Scheme == h.endpoint.Scheme && u.Host == h.endpoint.Host {
			r.Header.Set("Authorization", "Bearer "+h.token)
		}
		resp, err := c.http.Do(r)
		if err != nil {
			return nil, err
		}
		if l := resp.Header.Get("X-Linked-Etag"); l != "" {
			linked = l
		}
		location := resp.Header.Get("Location")
		if resp.StatusCode < 300 || resp.StatusCode > 399 || location == "" {
			return &answer{resp, u, linked}, nil
		}
		drain(resp.Body)
		next, err := u.Parse(location)
		if err != nil {
			return nil, fmt.Errorf("%s leads to %.200q, which is no URL", u.Host, location)
		}
		if u.Scheme == "https" && next.Scheme != "https" {
			return nil, &refusal{text: fmt.Sprintf("%s leads to %s, which is not encrypted: not followed", u.Host, next.Redacted())}
		}
		u = next
	}
	return nil, &refusal{text: fmt.Sprintf("more than %d redirects, last to %s", maxRedirects, u.Host)}
}

func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10) // so that the connection can be used again
	_ = body.Close()
}

// A refusal is an answer that repeating would not change.
type refusal struct {
	text   string
	absent bool // there is nothing of that name
}

func (r *refusal) Error() string { return r.text }

// Is tells that a file is not there.
func (r *refusal) Is(target error) bool { return target == fs.ErrNotExist && r.absent }

// errBusy is an answer that repeating may change.
type errBusy struct {
	text  string
	after time.Duration // what the host asks for; 0: nothing
}

func (e *errBusy) Error() string { return e.text }

// judge turns an answer's status into an error, which says what to do.
func (c *client) judge(a *answer) error {
	code := a.StatusCode
	text := fmt.Sprintf("%s answers %d %s", a.url.Host, code, http.StatusText(code))
	switch {
	case code == http.StatusOK || code == http.StatusPartialContent:
		return nil
	case code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code == http.StatusTooEarly || code >= 500:
		return &errBusy{text, retryAfter(a.Header.Get("Retry-After"))}
	case c.hub != nil && a.url.Host != c.hub.endpoint.Host && code >= 400:
		return &errBusy{text: text} // an address that is no longer good: the hub gives a new one
	case code == http.StatusNotFound || code == http.StatusGone:
		return &refusal{text, true}
	case c.hub == nil && code == http.StatusForbidden: // what a bucket that may not be listed says of what it lacks
		return &refusal{text + ": not there, or not for everyone", true}
	case c.hub == nil && code == http.StatusUnauthorized:
		return &refusal{text: text + ": it wants a login, which can be given as https://USER:PASSWORD@HOST/…"}
	case c.hub == nil:
		return &refusal{text: text}
	}
	page := c.hub.endpoint.String() + "/" + c.hub.repo
	gated := a.Header.Get("X-Error-Code") == "GatedRepo"
	switch {
	case code == http.StatusUnauthorized && c.hub.token == "" && gated:
		text += fmt.Sprintf(": the model is gated: accept its licence on %s, then set HF_TOKEN to a token of that account", page)
	case code == http.StatusUnauthorized && c.hub.token == "":
		text += ": no model of that name is public: check the name, or set HF_TOKEN if it is private or gated"
	case code == http.StatusUnauthorized:
		text += fmt.Sprintf(": check the name; if it is right, HF_TOKEN does not give access to it: make a token with read access on %s/settings/tokens", c.hub.endpoint)
	case code == http.StatusForbidden && c.hub.token == "":
		text += fmt.Sprintf(": accept the licence on %s, then set HF_TOKEN to a token of that account", page)
	case code == http.StatusForbidden:
		text += fmt.Sprintf(": accept the licence on %s with the account of HF_TOKEN", page)
	}
	return &refusal{text: text}
}

// final tells whether trying again is no use.
func final(err error) bool {
	var refused *refusal
	var certificate *tls.CertificateVerificationError
	var lookup *net.DNSError
	return errors.As(err, &refused) || errors.Is(err, ErrChanged) || errors.As(err, &certificate) || errors.As(err, &lookup) && lookup.IsNotFound
}

// retryAfter reads seconds or a date.
func retryAfter(text string) time.Duration {
	if seconds, err := strconv.ParseUint(strings.TrimSpace(text), 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// again runs attempt until it succeeds, refuses, or tries in a row brought no
// bytes.
func (c *client) again(ctx context.Context, attempt func() (moved bool, err error)) error {
	failures := 0
	for total := 1; ; total++ {
		moved, err := attempt()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if final(err) {
			return err
		}
		if moved {
			failures = 0
		}
		if failures++; failures >= tries || total >= most {
			return fmt.Errorf("%d attempts in a row failed, the last: %w; run the same command again to go on from here", failures, err)
		}
		wait := min(maxWait, firstWait<<(failures-1))
		wait = wait/2 + rand.N(wait/2) // so that many do not come back at once
		var busy *errBusy
		if errors.As(err, &busy) && busy.after > 0 {
			if busy.after > maxRetryAfter {
				return fmt.Errorf("%w, and asks to come back in %v: run the same command again then", err, busy.after.Round(time.Second))
			}
			wait = max(wait, busy.after)
		}
		if err := c.sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// whole reads a small file.
func (c *client) whole(ctx context.Context, u *url.URL, limit int64) (data []byte, header http.Header, err error) {
	err = c.again(ctx, func() (bool, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		a, err := c.request(ctx, u, "")
		if err != nil {
			return false, err
		}
		defer drain(a.Body)
		if err := c.judge(a); err != nil {
			return false, err
		}
		if a.ContentLength > limit {
			return false, &refusal{text: fmt.Sprintf("%d bytes, want at most %d", a.ContentLength, limit)}
		}
		header = a.Header
		data, err = io.ReadAll(io.LimitReader(watch(a.Body, cancel), limit+1))
		if err == nil && int64(len(data)) > limit {
			err = &refusal{text: fmt.Sprintf("more than %d bytes", limit)}
		}
		return false, err
	})
	return data, header, err
}

// watch cancels a request whose body brings nothing for too long.
func watch(body io.Reader, cancel context.CancelFunc) io.Reader {
	return &watched{body, time.AfterFunc(idle, cancel)}
}

type watched struct {
	io.Reader
	timer *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(idle)
	n, err := w.Reader.Read(p)
	w.timer.Stop()
	return n, err
}

// statedHash is the SHA-256 that an answer states: a hub's name of the content,
// or a digest field (RFC 9530).
func statedHash(h http.Header) string {
	if tag := plainTag(h.Get("X-Linked-Etag")); isSHA256(tag) {
		return strings.ToLower(tag)
	}
	for part := range strings.SplitSeq(h.Get("Repr-Digest"), ",") {
		coded, ok := strings.CutPrefix(strings.TrimSpace(part), "sha-256=:")
		if sum, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(coded, ":")); ok && err == nil && len(sum) == 32 {
			return hex.EncodeToString(sum)
		}
	}
	return ""
}

func plainTag(tag string) string { return strings.Trim(strings.TrimPrefix(tag, "W/"), `"`) }
