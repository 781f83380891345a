"""Django REST framework's generic views in one file, for gunicorn.

CONN_MAX_AGE is set, as Django's deployment checklist advises; without it every request opens a connection.
"""

import os
from urllib.parse import urlsplit

import django
import pymysql
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection, models
from django.urls import path

url = urlsplit(os.environ["DATABASE_URL"])
if url.scheme == "mysql":
    pymysql.install_as_MySQLdb()
    database = {
        "ENGINE": "django.db.backends.mysql",
        "NAME": url.path[1:],
        "HOST": url.hostname,
        "PORT": url.port,
        "USER": url.username,
    }
else:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": url.path[1:]}

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": {"CONN_MAX_AGE": 60, **database}},
    INSTALLED_APPS=["rest_framework", __name__],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "UNAUTHENTICATED_USER": None,
    },
    ROOT_URLCONF=__name__,
    USE_TZ=True,
)
django.setup()

from rest_framework import generics, pagination, response, serializers  # noqa: E402 - they need the settings


class Student(models.Model):  # noqa: DJ008 - no admin pages here
    name = models.CharField(max_length=100)
    department = models.CharField(max_length=100)
    cgpa = models.FloatField()

    class Meta:
        db_table = "students"


class StudentSerializer(serializers.ModelSerializer):
    class Meta:
        model = Student
        fields = ("id", "name", "department", "cgpa")


class ArrayPagination(pagination.LimitOffsetPagination):
    """The framework's own pagination, without its envelope."""

    default_limit = 100
    max_limit = 1000

    def get_paginated_response(self, data: list[dict[str, object]]) -> response.Response:
        return response.Response(data)


class StudentList(generics.ListAPIView):
    queryset = Student.objects.order_by("id")
    serializer_class = StudentSerializer
    pagination_class = ArrayPagination


class StudentCreate(generics.CreateAPIView):
    queryset = Student.objects.all()
    serializer_class = StudentSerializer


class StudentDetail(generics.RetrieveUpdateDestroyAPIView):
    queryset = Student.objects.all()
    serializer_class = StudentSerializer


urlpatterns = [
    path("student", StudentCreate.as_view()),
    path("students", StudentList.as_view()),
    path("student/<int:pk>", StudentDetail.as_view()),
]

if "students" not in connection.introspection.table_names():
    with connection.schema_editor() as editor:
        editor.create_model(Student)

app = get_wsgi_application()
