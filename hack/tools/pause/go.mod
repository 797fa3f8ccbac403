module github.com/capi-kamaji/hack/tools/pause

go 1.26.0
