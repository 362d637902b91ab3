package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/potluck-llm/potluck/coordinator/hub"
)

// An apiError is what a client is told, in OpenAI's shape.
type apiError struct {
	Status  int
	Code    string
	Param   string
	Message string
	Missing int64 // bytes that the room lacks
}

func (e *apiError) Error() string { return e.Message }

// invalid is a 400 that names the parameter.
func invalid(param, format string, args ...any) *apiError {
	return &apiError{Status: http.StatusBadRequest, Code: "invalid_value", Param: param, Message: fmt.Sprintf("%s: %s", param, fmt.Sprintf(format, args...))}
}

func modelNotFound(got, have string) *apiError {
	return &apiError{Status: http.StatusNotFound, Code: "model_not_found", Param: "model", Message: fmt.Sprintf("there is no model %.80q here, only %q", got, have)}
}

// apiErrorOf turns what the engine says into what a client is told.
func apiErrorOf(err error) *apiError {
	var own *apiError
	var request *hub.RequestError
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &request):
		switch request.Code {
		case "too_long":
			return &apiError{Status: http.StatusBadRequest, Code: "context_length_exceeded", Param: "messages", Message: request.Reason}
		case "no_room":
			return &apiError{Status: http.StatusServiceUnavailable, Code: "no_room", Message: request.Reason, Missing: request.Missing}
		case "busy":
			return &apiError{Status: http.StatusTooManyRequests, Code: "busy", Message: request.Reason}
		}
		return &apiError{Status: http.StatusServiceUnavailable, Code: request.Code, Message: request.Reason}
	}
	return &apiError{Status: http.StatusInternalServerError, Code: "internal", Message: err.Error()}
}

// body is the error as OpenAI's clients read it.
func (e *apiError) body() map[string]any {
	kind := "invalid_request_error"
	if e.Status >= 500 {
		kind = "server_error"
	}
	inner := map[string]any{"message": e.Message, "type": kind, "param": nil, "code": e.Code}
	if e.Param != "" {
		inner["param"] = e.Param
	}
	if e.Missing > 0 {
		inner["missing_bytes"] = e.Missing
	}
	return map[string]any{"error": inner}
}

func failed(w http.ResponseWriter, err error) {
	e := apiErrorOf(err)
	report(w, e)
	w.Header().Set("Content-Type", "application/json")
	if e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", strconv.Itoa(5))
	}
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(e.body())
}
