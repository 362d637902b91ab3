package token

// Scanners are for tests that compare them with an engine.
var Scanners = scanners
