"""Certificates for tests, made by the openssl command."""

import subprocess


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_authority(folder, name):
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / f"{name}.key")
    openssl("req", "-x509", *key, "-out", folder / f"{name}.pem", "-subj", f"/CN={name}", "-days", "3650")


def make_certificate(folder, authority, name, subject=None):
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / f"{name}.key")
    openssl("req", *key, "-out", folder / f"{name}.csr", "-subj", subject or f"/CN={name}")
    extensions = folder / f"{name}.ext"
    extensions.write_text("subjectAltName = DNS:localhost, IP:127.0.0.1\n")
    by = ("-CA", folder / f"{authority}.pem", "-CAkey", folder / f"{authority}.key", "-CAcreateserial", "-days", "3650")
    openssl("x509", "-req", "-in", folder / f"{name}.csr", *by, "-out", folder / f"{name}.pem", "-extfile", extensions)
