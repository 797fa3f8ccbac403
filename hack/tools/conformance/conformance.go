// Package conformance pins the module of Kubernetes' end-to-end tests: a package of tests is no tool that go.mod can name.
package conformance

import _ "k8s.io/kubernetes/test/e2e"
