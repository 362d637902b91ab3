// Package directions holds nothing but the test that keeps the packages'
// imports pointing one way: along the path of a weight and a token.
package directions
