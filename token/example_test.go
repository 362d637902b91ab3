package token_test

import (
	"fmt"
	"os"

	"github.com/potluck-llm/potluck/token"
)

func Example() {
	data, err := os.ReadFile("testdata/qwen2/tokenizer.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	tok, err := token.FromJSON(data)
	if err != nil {
		fmt.Println(err)
		return
	}
	ids := tok.Encode("<|im_start|>Don't worry 🙂", token.EncodeOptions{})
	fmt.Println(ids)
	stream := tok.Stream(true)
	for _, id := range ids {
		fmt.Printf("%q\n", stream.Push(id)) // the face comes when its second token does
	}
	// Output:
	// [1641 35 287 550 1284 220 988 224]
	// ""
	// "D"
	// "on"
	// "'t"
	// " worry"
	// " "
	// ""
	// "🙂"
}
