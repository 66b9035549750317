# Packages that no distribution has, from their vendor and with the vendor's signature. Sourced by scripts that
# have already sourced os/*.sh.
# shellcheck shell=bash disable=SC2154  # signature_packages: os/*.sh

fetch() {
  curl --fail --silent --show-error --location --retry 5 --retry-connrefused --output "$2" "$1"
}

# Installs a package if its signature is valid and by a key with one of the fingerprints. A key that has expired
# since does not matter: versions are pinned.
#   usage: install_signed URL SIGNATURE_URL KEYS FINGERPRINT…   (KEYS: a file with the keys, as text)
install_signed() {
  local url=$1 signature=$2 keys=$3 package scratch signer
  shift 3
  for package in "${signature_packages[@]}"; do
    os_is_installed "$package" || os_install "$package"
  done
  scratch=$(mktemp --directory)
  # shellcheck disable=SC2064  # this folder
  trap "rm -rf '$scratch'" EXIT
  package=$scratch/${url##*/}
  fetch "$url" "$package"
  fetch "$signature" "$scratch/signature"
  # The import checks that a key's parts belong together; gpgv trusts only what is exported.
  mkdir --mode=0700 "$scratch/gpg"
  gpg --homedir "$scratch/gpg" --batch --quiet --import "$keys"
  gpg --homedir "$scratch/gpg" --batch --quiet --export "$@" >"$scratch/keyring.gpg"
  signer=$(gpgv --quiet --status-fd 1 --keyring "$scratch/keyring.gpg" "$scratch/signature" "$package" |
    awk '$2 == "VALIDSIG" { print $NF }')
  if [[ " $* " != *" $signer "* ]]; then
    echo "$url: signed by $signer, allowed are $*" >&2
    return 1
  fi
  os_install_file "$package"
}
