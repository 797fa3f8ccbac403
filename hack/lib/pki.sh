# Certificates of the management cluster, generated once per lab with openssl: one CA, P-256 keys, and an RSA key pair for
# ServiceAccount tokens. They are deleted with the lab.

LAB_PKI=$LAB_DATA/pki

pki_up() {
  local san
  mkdir -p "$LAB_PKI"
  chmod 0700 "$LAB_PKI"
  [ -f "$LAB_PKI/ca.crt" ] || {
    pki_key ca
    openssl req -x509 -new -key "$LAB_PKI/ca.key" -sha256 -days 3650 -subj /CN=lab-ca -out "$LAB_PKI/ca.crt" \
      -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
  }
  san=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost
  pki_certificate apiserver /CN=kube-apiserver serverAuth "$san,IP:$LAB_HOST,IP:$LAB_API_SERVICE,IP:127.0.0.1"
  pki_certificate apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
  pki_certificate front-proxy-client /CN=front-proxy-client clientAuth
  pki_certificate kcm /CN=system:kube-controller-manager clientAuth
  pki_certificate scheduler /CN=system:kube-scheduler clientAuth
  pki_certificate kube-proxy /CN=system:kube-proxy clientAuth
  pki_certificate admin /O=system:masters/CN=lab-admin clientAuth
  pki_certificate kubelet "/O=system:nodes/CN=system:node:$LAB_NODE" clientAuth,serverAuth "DNS:$LAB_NODE,IP:$LAB_HOST"
  [ -f "$LAB_PKI/sa.pub" ] || {
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$LAB_PKI/sa.key" 2>/dev/null
    openssl pkey -in "$LAB_PKI/sa.key" -pubout -out "$LAB_PKI/sa.pub"
  }
  for name in kcm scheduler kube-proxy admin kubelet; do
    pki_kubeconfig "$name" >"$LAB_PKI/$name.kubeconfig"
  done
}

pki_key() { (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$LAB_PKI/$1.key"); }

pki_certificate() { # name, subject, usages, SANs
  local name=$1 subject=$2 usages=$3 san=${4:-}
  [ ! -f "$LAB_PKI/$name.crt" ] || return 0
  pki_key "$name"
  openssl req -new -key "$LAB_PKI/$name.key" -subj "$subject" -out "$LAB_PKI/$name.csr"
  openssl x509 -req -in "$LAB_PKI/$name.csr" -CA "$LAB_PKI/ca.crt" -CAkey "$LAB_PKI/ca.key" -CAcreateserial \
    -sha256 -days 365 -out "$LAB_PKI/$name.part" -extfile <(
      printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n' "$usages"
      [ -z "$san" ] || printf 'subjectAltName=%s\n' "$san"
    ) 2>/dev/null
  mv "$LAB_PKI/$name.part" "$LAB_PKI/$name.crt"
  rm -f "$LAB_PKI/$name.csr"
}

pki_kubeconfig() { # name
  cat <<EOF
apiVersion: v1
kind: Config
clusters:
- name: management
  cluster:
    server: https://$LAB_HOST:6443
    certificate-authority-data: $(base64 -w0 <"$LAB_PKI/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 <"$LAB_PKI/$1.crt")
    client-key-data: $(base64 -w0 <"$LAB_PKI/$1.key")
contexts:
- name: management
  context: {cluster: management, user: $1}
current-context: management
EOF
}
