package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"strings"
)

const (
	defaultEndpoint = "https://huggingface.co"
	defaultRevision = "main"

	// The most that an answer of the hub's API may hold, and how many pages of
	// a list are read: no repository with one model comes near.
	maxAnswer = 32 << 20
	maxPages  = 100
)

// A repository is what an hf: name says.
type repository struct {
	owner, name, revision, path string
}

// parseHub reads hf:OWNER/NAME[@REVISION][/PATH].
func parseHub(name string) (repository, error) {
	wrong := errors.New("want hf:OWNER/NAME, hf:OWNER/NAME@REVISION, or with /FILE.gguf at the end")
	owner, rest, ok := strings.Cut(strings.TrimPrefix(name, "hf:"), "/")
	if !ok {
		return repository{}, wrong
	}
	r := repository{owner: owner, revision: defaultRevision}
	repo, revision, pinned := strings.Cut(rest, "@")
	if pinned && !strings.Contains(repo, "/") {
		r.name = repo
		r.revision, r.path, _ = strings.Cut(revision, "/")
		if parts := strings.SplitN(revision, "/", 4); parts[0] == "refs" && len(parts) >= 3 {
			r.revision, r.path = strings.Join(parts[:3], "/"), strings.Join(parts[3:], "/")
		}
	} else {
		r.name, r.path, _ = strings.Cut(rest, "/")
	}
	for _, part := range append([]string{r.owner, r.name, r.revision}, strings.Split(path.Clean("/"+r.path), "/")[1:]...) {
		if part == "." || part == ".." || strings.ContainsAny(part, "?#\\ ") {
			return repository{}, wrong
		}
	}
	if r.owner == "" || r.name == "" || r.revision == "" {
		return repository{}, wrong
	}
	r.path = strings.Trim(r.path, "/")
	return r, nil
}

// hubName is the hf: name of what a hub's page shows, whose address people copy
// from their browser; "" for other addresses.
func hubName(address, endpoint string) string {
	page, ok := strings.CutPrefix(address, strings.TrimSuffix(endpoint, "/")+"/")
	page, _, _ = strings.Cut(page, "?")
	part := strings.SplitN(strings.TrimSuffix(page, "/"), "/", 5)
	switch {
	case !ok || len(part) < 2:
		return ""
	case len(part) == 2:
		return "hf:" + part[0] + "/" + part[1]
	case len(part) >= 4 && (part[2] == "tree" || part[2] == "blob" || part[2] == "resolve"):
		return "hf:" + part[0] + "/" + part[1] + "@" + strings.Join(part[3:], "/")
	}
	return ""
}

// openHub asks the hub which commit a revision is, and what lies there.
func (m *Model) openHub(o Options) error {
	r, err := parseHub(m.Place)
	if err != nil {
		return err
	}
	endpoint, err := url.Parse(strings.TrimSuffix(o.Endpoint, "/"))
	if err != nil || endpoint.Host == "" || (endpoint.Scheme != "https" && endpoint.Scheme != "http") {
		return fmt.Errorf("HF_ENDPOINT is %q: want https://HOST", o.Endpoint)
	}
	m.client = newClient(o.Client)
	m.client.hub = &hub{endpoint: endpoint, repo: r.owner + "/" + r.name}
	if endpoint.Scheme == "https" || isLocal(endpoint) {
		m.client.hub.token = o.Token
	}
	api := endpoint.JoinPath("api", "models", r.owner, r.name)
	var info struct {
		SHA  string `json:"sha"`
		Card struct {
			License any `json:"license"`
		} `json:"cardData"`
	}
	if _, err := m.api(api.JoinPath("revision", url.PathEscape(r.revision)), &info); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no such model, or it has no revision %s; check the name on %s/%s/%s: %w", r.revision, endpoint, r.owner, r.name, err)
		}
		return err
	}
	if info.SHA == "" || strings.Trim(info.SHA, "0123456789abcdef") != "" {
		return fmt.Errorf("the host says that revision %s is commit %.80q", r.revision, info.SHA)
	}
	m.Revision = info.SHA
	m.License, _ = info.Card.License.(string)
	if strings.HasSuffix(strings.ToLower(r.path), ".gguf") {
		r.path, m.GGUF = path.Split(r.path)
	}
	folder := strings.Trim(r.path, "/")
	m.base = endpoint.JoinPath(r.owner, r.name, "resolve", info.SHA, folder)
	m.base.Path = strings.TrimSuffix(m.base.Path, "/") + "/"
	m.base.RawPath = ""
	m.hosted = true
	return m.list(api.JoinPath("tree", info.SHA), folder)
}

// list reads the tree of the repository, page after page.
func (m *Model) list(tree *url.URL, folder string) error {
	tree.RawQuery = "recursive=true"
	m.listing = map[string]entry{}
	for range maxPages {
		var files []struct {
			Type, Path, OID string
			Size            int64
			LFS             struct {
				OID  string
				Size int64
			}
		}
		next, err := m.api(tree, &files)
		if err != nil {
			return err
		}
		for _, f := range files {
			name := f.Path
			if folder != "" {
				var below bool
				if name, below = strings.CutPrefix(name, folder+"/"); !below {
					continue
				}
			}
			if f.Type != "file" || strings.Contains(name, "/") && name != m.GGUF {
				continue
			}
			e := entry{size: f.Size, blob: f.OID}
			if isSHA256(f.LFS.OID) { // then the blob is a pointer's
				e = entry{size: f.LFS.Size, sha256: f.LFS.OID}
			}
			m.listing[name] = e
		}
		if next == nil {
			return nil
		}
		tree = next
	}
	return fmt.Errorf("the list of files has more than %d pages", maxPages)
}

// api asks for one JSON answer and returns where the next page is.
func (m *Model) api(u *url.URL, answer any) (next *url.URL, err error) {
	data, header, err := m.client.whole(m.ctx, u, maxAnswer)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return nil, fmt.Errorf("%s does not answer as a Hugging Face host does: %w", u.Host, err)
	}
	for link := range strings.SplitSeq(header.Get("Link"), ",") {
		target, relation, _ := strings.Cut(link, ";")
		if !strings.Contains(relation, `rel="next"`) {
			continue
		}
		next, err := u.Parse(strings.Trim(strings.TrimSpace(target), "<>"))
		if err != nil || next.Host != u.Host || next.Scheme != u.Scheme {
			return nil, fmt.Errorf("%s: the next page %.200q is not on that host", u.Host, target)
		}
		return next, nil
	}
	return nil, nil
}
