package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// Version is the version of the protocol.
const Version = 1

// Subprotocol is the WebSocket subprotocol.
const Subprotocol = "potluck.v1"

// Limits of control messages.
const (
	MaxControl = 64 << 10
	MaxName    = 32 // characters of a name
	maxText    = 1 << 10
)

// prototypes maps each type to a new message.
var prototypes = map[string]func() any{
	"hello": func() any { return &Hello{} }, "welcome": func() any { return &Welcome{} },
	"assign": func() any { return &Assign{} }, "release": func() any { return &Release{} },
	"progress": func() any { return &Progress{} }, "ready": func() any { return &Ready{} },
	"refuse": func() any { return &Refuse{} }, "trim": func() any { return &Trim{} },
	"cancel": func() any { return &Cancel{} }, "failed": func() any { return &Failed{} },
	"stats": func() any { return &Stats{} }, "ping": func() any { return &Ping{} },
	"pong": func() any { return &Pong{} }, "leave": func() any { return &Leave{} },
	"error": func() any { return &Error{} },
}

// TypeOf is the type of a message (a pointer to one of this package's control
// structs), "" for anything else.
func TypeOf(message any) string {
	switch message.(type) {
	case *Hello:
		return "hello"
	case *Welcome:
		return "welcome"
	case *Assign:
		return "assign"
	case *Release:
		return "release"
	case *Progress:
		return "progress"
	case *Ready:
		return "ready"
	case *Refuse:
		return "refuse"
	case *Trim:
		return "trim"
	case *Cancel:
		return "cancel"
	case *Failed:
		return "failed"
	case *Stats:
		return "stats"
	case *Ping:
		return "ping"
	case *Pong:
		return "pong"
	case *Leave:
		return "leave"
	case *Error:
		return "error"
	}
	return ""
}

// EncodeControl returns a message as a text frame.
func EncodeControl(message any) ([]byte, error) {
	kind := TypeOf(message)
	if kind == "" {
		return nil, fmt.Errorf("%T is no control message", message)
	}
	body, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	frame := append([]byte(`{"type":"`+kind+`"`), ',')
	frame = append(frame, body[1:]...)
	if bytes.Equal(body, []byte("{}")) {
		frame = []byte(`{"type":"` + kind + `"}`)
	}
	if len(frame) > MaxControl {
		return nil, fmt.Errorf("%s message of %d bytes, at most %d", kind, len(frame), MaxControl)
	}
	return frame, nil
}

// DecodeControl reads a text frame. The message is a pointer to one of this
// package's control structs.
func DecodeControl(frame []byte) (any, error) {
	if len(frame) > MaxControl {
		return nil, fmt.Errorf("control message of %d bytes, at most %d", len(frame), MaxControl)
	}
	if !utf8.Valid(frame) {
		return nil, fmt.Errorf("control message is not UTF-8")
	}
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(frame, &head); err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	make, ok := prototypes[head.Type]
	if !ok {
		return nil, fmt.Errorf("control message of unknown type %.40q", head.Type)
	}
	message := make()
	if err := json.Unmarshal(frame, message); err != nil {
		return nil, fmt.Errorf("%s message: %w", head.Type, err)
	}
	return message, nil
}
