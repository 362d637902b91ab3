package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/coordinator/api"
)

// invitation is that of the tests' rooms.
var invitation = api.Invitation{
	Bases:     []string{"http://192.168.1.5:7777", "http://[fd00::5]:7777"},
	Words:     "lusab babad gutih",
	Authority: []byte("-----BEGIN CERTIFICATE-----\n"),
}

func TestInvitation(t *testing.T) {
	s := open(t, 0)
	status, body, _ := s.get("/v1/cluster/invitation", "Authorization", "Bearer key")
	require.Equal(t, 200, status)
	var got struct {
		Token, Words string
		Links        []struct {
			URL string
			QR  []string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.Equal(t, "t", got.Token)
	require.Equal(t, invitation.Words, got.Words)
	require.Len(t, got.Links, 2)
	require.Equal(t, "http://192.168.1.5:7777/j#t", got.Links[0].URL)
	require.Equal(t, "http://[fd00::5]:7777/j#t", got.Links[1].URL)
	rows := got.Links[0].QR
	require.GreaterOrEqual(t, len(rows), 21) // ISO/IEC 18004: 21 modules are the smallest
	for _, row := range rows {
		require.Len(t, row, len(rows))
		require.Empty(t, strings.Trim(row, "01"))
	}
	require.True(t, strings.HasPrefix(rows[0], "11111110") && strings.HasSuffix(rows[0], "01111111"), "no finder patterns: %s", rows[0])

	_, body, _ = s.get("/v1/certificate")
	require.JSONEq(t, `{"words":"lusab babad gutih"}`, body)
	status, body, header := s.get("/authority.pem")
	require.Equal(t, 200, status)
	require.Equal(t, string(invitation.Authority), body)
	require.Equal(t, "application/x-pem-file", header.Get("Content-Type"))
}

// A page asked for over http from another machine explains the warning first:
// browsers would not let it compute.
func TestWarning(t *testing.T) {
	s := open(t, 0)
	for _, c := range []struct {
		path, host, proto string
		warns             bool
	}{
		{"/", "127.0.0.1:7777", "", false},
		{"/", "[::1]:7777", "", false},
		{"/join", "localhost", "", false},
		{"/join", "room.localhost:1", "", false},
		{"/", "192.168.1.5:7777", "", true},
		{"/j", "laptop.local:7777", "", true},
		{"/room", "[fd00::5]", "", true},
		{"/join", "localhost.example.org", "", true},
		{"/join", "room.example.org", "https", false}, // a proxy in front speaks https
	} {
		request := httptest.NewRequest("GET", s.http.URL+c.path, nil)
		request.RequestURI, request.Host = "", c.host
		if c.proto != "" {
			request.Header.Set("X-Forwarded-Proto", c.proto)
		}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		require.NoError(t, err)
		require.Equal(t, 200, response.StatusCode)
		require.Equal(t, c.warns, strings.Contains(string(body), "One warning first"), "%s of %s", c.path, c.host)
	}
}
